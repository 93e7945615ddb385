"""MCG-NJU/VideoMAE: `modeling_pretrain` and `modeling_finetune`; transformers'."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from unveil.errors import UserError
from unveil.weights import _transformers, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (MCG-NJU/VideoMAE)"

PRETRAINED = {
    "encoder.patch_embed.proj.bias": "encoder.embed.bias",
    "encoder.blocks.": "encoder.blocks.",
    "encoder.norm.": "encoder.norm.",
    "encoder_to_decoder.": "decoder.embed.",
    "mask_token": "decoder.mask_token",
    "decoder.": "decoder.",
}
FINETUNED = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "fc_norm.": "encoder.fc_norm.",
    "head.": "head.linear.",
}
#: Published names → those of transformers' `VideoMAEForPreTraining` and `VideoMAEForVideoClassification`.
THEIRS_PRETRAINED = {
    "encoder.patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
    "encoder.blocks.": "videomae.encoder.layer.",
    "encoder.norm.": "videomae.layernorm.",
    "decoder.blocks.": "decoder.decoder_layers.",
}
THEIRS_FINETUNED = {
    "patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
    "blocks.": "videomae.encoder.layer.",
    "head.": "classifier.",
}


def convert(
    state: State, num_heads: int | None = None, decoder_num_heads: int | None = None, **flags: Any
) -> Converted:
    """See `unveil.weights.convert`. Positions are fixed and not saved: they are computed for `frames` and `crop`."""
    given = Reader(_vit.fold_layer_scale(_named(state)))
    pretrained = "encoder.patch_embed.proj.weight" in given
    prefix = "encoder." if pretrained else ""
    weight = given[f"{prefix}patch_embed.proj.weight"]
    tubelet, patch = _vit.patch_size(weight, 3)[:2]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, f"{prefix}blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch, "tubelet": tubelet}
    ours = given.renamed(PRETRAINED if pretrained else FINETUNED)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    if not pretrained:
        absent = () if "head.weight" in given else ("head.",)
        return Converted("videomae:finetune", found | _vit.head(given), ours, absent, given.unused, notes)
    if "mask_token" not in given:
        notes.append("the file holds the encoder alone; the decoder is as initialised, so reconstructions mean nothing")
        return Converted("videomae", found, ours, ("decoder.",), given.unused, notes)
    found["decoder_depth"] = _vit.depth(given, "decoder.blocks.")
    if decoder_num_heads is not None:
        found["decoder_heads"] = decoder_num_heads
    return Converted("videomae", found, ours, unused=given.unused, notes=notes)


def _named(state: State) -> State:
    """transformers' names → the published ones; version 5 holds the biases as those of linear layers."""
    as_in_files = {
        re.sub(
            r"(attention\.attention\.)(q)uery\.bias|(attention\.attention\.)(v)alue\.bias", r"\1\2\3\4_bias", name
        ): value
        for name, value in state.items()
    }
    with_norm = "videomae.layernorm.weight" in state or "layernorm.weight" in state
    return _transformers.published(as_in_files, THEIRS_PRETRAINED if with_norm else THEIRS_FINETUNED)


def revert(objective: nn.Module, encoder_only: bool) -> _transformers.Reverted:
    """As transformers' `VideoMAEForPreTraining`, `VideoMAEForVideoClassification` or `VideoMAEModel`.

    Raises:
        UserError: it cannot be one.
    """
    encoder = _transformers.checked(objective.get_submodule("encoder"), "qv", ("flat",), class_token=False)
    parts: Any = objective
    size = parts.encoder.patchify.size
    config = {"model_type": "videomae", **_transformers.sizes(encoder), "tubelet_size": size[0], "qv_bias": True}
    config |= {"num_frames": parts.encoder.positions.grid[0] * size[0], "use_mean_pooling": encoder.norm is None}
    pretrained = encoder.norm is not None
    names, table = (PRETRAINED, THEIRS_PRETRAINED) if pretrained else (FINETUNED, THEIRS_FINETUNED)
    if encoder_only and not pretrained:
        raise UserError(_transformers.refusal(["the norm of its pooled features has no place in their encoder"]))
    if not encoder_only:
        config |= _whole(parts, pretrained)
    if not encoder_only and pretrained and hasattr(parts, "head"):
        raise UserError(_transformers.refusal(["it classifies tokens that were normed before they were pooled"]))
    state = _transformers.own_state(objective, names)
    prefix = "encoder." if pretrained else ""
    state[f"{prefix}patch_embed.proj.weight"] = _vit.convolution(objective.get_parameter("encoder.embed.weight"), size)
    kind = "Model" if encoder_only else "ForPreTraining" if pretrained else "ForVideoClassification"
    return _transformers.Reverted(f"VideoMAE{kind}", config, _transformers.foreign(state, table, encoder_only))


def _whole(parts: Any, pretrained: bool) -> dict[str, Any]:
    """What the configuration says of decoder and target; raises `UserError` where theirs are others."""
    from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD
    from unveil.targets import Pixels

    if not pretrained:
        _transformers.linear_head(parts.head)
        return {}
    decoder = _transformers.checked_decoder(parts.decoder, "qv", ("flat",), embed_bias=False, shared=False)
    target = parts.target
    theirs = isinstance(target, Pixels) and target.frames is None and target.normalize in ("channel", None)
    if not theirs or (target.mean, target.std) != (IMAGENET_MEAN, IMAGENET_STD):
        wrong = _transformers.refusal([f"its target is {target!r}, theirs the pixels of tubelets, colour by colour"])
        raise UserError(f"{wrong} Or export the encoder alone: --part encoder.")
    return {**_transformers.decoder_sizes(decoder), "norm_pix_loss": target.normalize == "channel"}
