"""facebookresearch/mae: `models_mae` (pre-training, also its encoder alone) and `models_vit` (fine-tuned); transformers'."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unveil.errors import UserError
from unveil.weights import _transformers, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (facebookresearch/mae)"

ENCODER = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "fc_norm.": "encoder.fc_norm.",
    "head.": "head.linear.",
}
DECODER = {
    "mask_token": "decoder.mask_token",
    "decoder_embed.": "decoder.embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.head.",
}
#: Published names → those of transformers' `ViTMAEForPreTraining`.
VIT_MAE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.": "vit.embeddings.patch_embeddings.projection.",
    "blocks.": "vit.encoder.layer.",
    "norm.": "vit.layernorm.",
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_embed.": "decoder.decoder_embed.",
    "decoder_blocks.": "decoder.decoder_layers.",
    "decoder_norm.": "decoder.decoder_norm.",
    "decoder_pred.": "decoder.decoder_pred.",
}
#: The same of `BeitForImageClassification`: theirs is the class that pools the mean of the tokens and then has a norm.
BEIT = {
    "cls_token": "beit.embeddings.cls_token",
    "pos_embed": "beit.embeddings.position_embeddings",
    "patch_embed.proj.": "beit.embeddings.patch_embeddings.projection.",
    "blocks.": "beit.encoder.layer.",
    "fc_norm.": "beit.pooler.layernorm.",
    "head.": "classifier.",
}


def convert(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Fixed position tables may be absent: they are computed for the `crop` asked for."""
    given = Reader(_transformers.published(state, VIT_MAE, BEIT))
    weight = given["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight, 2)[0]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch}
    ours = given.renamed(ENCODER | DECODER)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = given["cls_token"]
    if "pos_embed" in given:
        # The class token has a row of its own in the table; here it is part of the token.
        table = given["pos_embed"]
        ours["encoder.class_token"] = given["cls_token"] + table[:, :1]
        ours["encoder.positions.table"] = table[0, 1:]
        found["crop"] = _vit.side(table.shape[1] - 1, patch)
        ours["encoder.positions.native"] = torch.tensor([found["crop"] // patch] * 2)
    if "decoder_pos_embed" in given:
        ours["decoder.positions.table"] = given["decoder_pos_embed"][0, 1:]
        ours["decoder.positions.native"] = torch.tensor([_vit.side(len(ours["decoder.positions.table"]), 1)] * 2)
    if "mask_token" in given:
        found["decoder_width"] = given["mask_token"].shape[-1]
        found["decoder_depth"] = _vit.depth(given, "decoder_blocks.")
        found["decoder_heads"] = decoder_num_heads
        return Converted("mae", found, ours, unused=given.unused, notes=notes)
    if "head.weight" in given:
        found |= _vit.head(given) | {"pool": "mean" if "fc_norm.weight" in given else "class"}
        return Converted("mae:finetune", found, ours, unused=given.unused, notes=notes)
    notes.append("the file holds the encoder alone; the decoder is as initialised, so reconstructions mean nothing")
    return Converted("mae", found, ours, absent=("decoder.",), unused=given.unused, notes=notes)


def revert(objective: nn.Module, encoder_only: bool) -> _transformers.Reverted:
    """As transformers' `ViTMAEForPreTraining`; a classifier that pools the mean as `BeitForImageClassification`.

    Raises:
        UserError: it cannot be one.
    """
    encoder = _transformers.checked(
        objective.get_submodule("encoder"), "all", ("learned", "sincos", "flat"), class_token=True
    )
    size = encoder.patchify.size  # pyright: ignore[reportAttributeAccessIssue]
    config = {**_transformers.sizes(encoder), "qkv_bias": True}
    if encoder.fc_norm is None:
        return _pretrained(objective, encoder, config)
    if not encoder_only:
        _transformers.linear_head(objective.get_submodule("head"))
    state = _with_tokens(_transformers.own_state(objective, ENCODER), encoder, size)
    # Their keys have no bias: it adds the same to all scores of a query, so the softmax is the same without it.
    theirs = {
        name: value
        for name, value in _transformers.foreign(state, BEIT, encoder_only).items()
        if not name.endswith(".key.bias")
    }
    config |= {"model_type": "beit", "use_mean_pooling": True, "use_absolute_position_embeddings": True}
    config |= {"layer_scale_init_value": 0.0, "drop_path_rate": 0.0, "use_mask_token": False}
    return _transformers.Reverted("BeitModel" if encoder_only else "BeitForImageClassification", config, theirs)


def _pretrained(objective: nn.Module, encoder: nn.Module, config: dict[str, Any]) -> _transformers.Reverted:
    from unveil.masking import Random
    from unveil.targets import Pixels

    parts: Any = objective
    decoder = _transformers.checked_decoder(
        parts.decoder, "all", ("learned", "sincos", "flat"), embed_bias=True, shared=True
    )
    masker, target = parts.masker, parts.target
    wrong = []
    if not isinstance(masker, Random):
        wrong.append(f"it masks by {masker!r}, theirs at random")
    plain = isinstance(target, Pixels) and target.mean is None and target.frames is None
    if not plain or target.normalize not in ("patch", None):
        wrong.append(f"its target is {target!r}, theirs the pixels of patches")
    if wrong:
        raise UserError(f"{_transformers.refusal(wrong)} Or export the encoder alone: --part encoder.")
    size = parts.encoder.patchify.size
    state = _with_tokens(_transformers.own_state(objective, ENCODER | DECODER), encoder, size)
    state["decoder_pos_embed"] = _transformers.table_with_class(decoder.positions)
    config |= {"model_type": "vit_mae", **_transformers.decoder_sizes(decoder)}
    config |= {"mask_ratio": masker.ratio, "norm_pix_loss": target.normalize == "patch"}
    return _transformers.Reverted("ViTMAEForPreTraining", config, _transformers.foreign(state, VIT_MAE, False))


def _with_tokens(state: State, encoder: nn.Module, size: tuple[int, ...]) -> State:
    return state | {
        "patch_embed.proj.weight": _vit.convolution(encoder.get_parameter("embed.weight"), size),
        "cls_token": encoder.get_parameter("class_token"),
        "pos_embed": _transformers.table_with_class(encoder.get_submodule("positions")),
    }
