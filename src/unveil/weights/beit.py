"""microsoft/unilm, beit: `modeling_pretrain` and `modeling_finetune`; transformers'."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.weights import _transformers, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "MIT (microsoft/unilm)"

NAMES = {
    "cls_token": "encoder.class_token",
    "mask_token": "encoder.mask_token",
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "fc_norm.": "encoder.fc_norm.",
    "lm_head.": "decoder.head.",
    "head.": "head.linear.",
}
#: Published names → those of transformers' `BeitForImageClassification`, and of `BeitForMaskedImageModeling`.
FINETUNED = {
    "cls_token": "beit.embeddings.cls_token",
    "pos_embed": "beit.embeddings.position_embeddings",
    "patch_embed.proj.": "beit.embeddings.patch_embeddings.projection.",
    "rel_pos_bias.": "beit.encoder.relative_position_bias.",
    "blocks.": "beit.encoder.layer.",
    "norm.": "beit.layernorm.",
    "fc_norm.": "beit.pooler.layernorm.",
    "head.": "classifier.",
}
PRETRAINED = {**FINETUNED, "mask_token": "beit.embeddings.mask_token", "norm.": "layernorm.", "lm_head.": "lm_head."}
QUERY = {"q": "query", "v": "value"}
TABLE = "relative_position_bias_table"
INDEX = "relative_position_index"


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. A pre-trained checkpoint has no tokenizer, which was a file of its own.

    Raises:
        UserError: it has both kinds of positions, or those that blocks share before fine-tuning where it is fine-tuned.
    """
    given = Reader({name: value for name, value in _named(state).items() if not name.endswith(INDEX)})
    given["blocks.0.attn.q_bias"]  # by which it is told from another ViT
    weight = given["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight, 2)[0]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    pretrained = "mask_token" in given
    ours = {_scale(name): value for name, value in given.renamed(NAMES).items() if not name.endswith(TABLE)}
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    found: dict[str, Any] = {"size": size, "patch": patch}
    if not any(".gamma_1" in name for name in given):
        found["layer_scale"] = 0.0
    found |= _positions(given, ours, pretrained, patch)
    if pretrained:
        absent = ("target.tokenizer.",)
        notes.append(
            "the file holds no tokenizer: a tiny one, as initialised, stands in its place, and predicts nothing"
        )
        found |= {"vocab": len(given["lm_head.weight"]), "tokenizer_size": "debug"}
        return Converted("beit", found, ours, absent, given.unused, notes)
    absent = () if "head.weight" in given else ("head.",)
    found |= _vit.head(given) | {"pool": "mean" if "fc_norm.weight" in given else "class"}
    return Converted("beit:finetune", found, ours, absent, given.unused, notes)


def _named(state: State) -> State:
    """transformers' names → the published ones, with biases on queries and values alone."""
    if not any(name.endswith("patch_embeddings.projection.weight") for name in state):
        return state
    bias = r"\b(attention\.)(?:attention\.)?([qv])(?:uery|alue|_proj)\.bias$"
    apart = {re.sub(bias, r"\1attention.\2_bias", name): value for name, value in state.items()}
    return _transformers.published(apart, PRETRAINED if "lm_head.weight" in state else FINETUNED)


def _scale(name: str) -> str:
    """`….gamma_1` → `….scale1.gamma`."""
    return re.sub(r"\.gamma_([12])$", r".scale\1.gamma", name)


def _positions(given: Reader, ours: State, pretrained: bool, patch: int) -> dict[str, Any]:
    """Put positions into our state; returns what they tell of flags.

    Raises:
        UserError: they are not those of such a network.
    """
    if "pos_embed" in given:
        if any(name.endswith(TABLE) for name in given):
            raise UserError("This BEiT has absolute and relative positions at once, as no recipe here.")
        table = given["pos_embed"]  # its first row is the class token's; here it is part of the token
        ours["encoder.class_token"] = given["cls_token"] + table[:, :1]
        ours["encoder.positions.table"] = table[0, 1:]
        crop = _vit.side(table.shape[1] - 1, patch)
        ours["encoder.positions.native"] = torch.tensor([crop // patch] * 2)
        return {"positions": "absolute", "crop": crop}
    shared = given.get(f"rel_pos_bias.{TABLE}")
    if shared is not None and pretrained:
        return {"crop": _bias(ours, "encoder.attention_bias.", shared, patch)}
    crop = 0
    for number in range(_vit.depth(given, "blocks.")):
        table = given[f"blocks.{number}.attn.{TABLE}"] if shared is None else shared
        crop = _bias(ours, f"encoder.attention_bias.{number}.", table, patch)
    return {"crop": crop}


def _bias(ours: State, prefix: str, table: Tensor, patch: int) -> int:
    """A table of distances with three rows of the class token behind; returns the side of the image in pixels."""
    distances = _vit.side(len(table) - 3, 1)
    grid = (distances + 1) // 2
    ours[f"{prefix}table"] = table
    ours[f"{prefix}native"] = torch.tensor([grid, grid])
    return grid * patch


def revert(objective: nn.Module, encoder_only: bool) -> _transformers.Reverted:
    """As transformers' `BeitForMaskedImageModeling`, without its tokenizer; `BeitForImageClassification`; `BeitModel`.

    Raises:
        UserError: it cannot be one.
    """
    encoder = _transformers.checked(
        objective.get_submodule("encoder"), "qv", ("learned",), class_token=True, relative=True
    )
    parts: Any = objective
    pretrained = not hasattr(parts, "head")
    if not encoder_only:
        _check_rest(parts, encoder, pretrained)
    state = _published(objective, encoder)
    if pretrained and encoder_only:
        state.pop("mask_token", None)
    scales = [value for name, value in state.items() if name.endswith(".gamma_1")]
    absolute, shared = "pos_embed" in state, f"rel_pos_bias.{TABLE}" in state
    config = {"model_type": "beit", **_transformers.sizes(encoder)}
    config |= {
        # Of the classes, this one alone norms what the encoder returns by a layer of its own.
        "use_mean_pooling": encoder.norm is None or (pretrained and not encoder_only),
        "use_mask_token": "mask_token" in state,
        "use_absolute_position_embeddings": absolute,
        "use_relative_position_bias": not absolute and not shared,
        "use_shared_relative_position_bias": shared,
        "layer_scale_init_value": 0.1 if scales else 0.0,
        "drop_path_rate": 0.0,
    }
    if "lm_head.weight" in state:
        config["vocab_size"] = len(state["lm_head.weight"])
    table = PRETRAINED if pretrained and not encoder_only else FINETUNED
    kind = "Model" if encoder_only else "ForMaskedImageModeling" if pretrained else "ForImageClassification"
    theirs = {
        re.sub(r"\.([qv])_bias$", lambda match: f".{QUERY[match[1]]}.bias", name): value
        for name, value in _transformers.foreign(state, table, encoder_only).items()
    }
    return _transformers.Reverted(f"Beit{kind}", config, theirs)


def _check_rest(parts: Any, encoder: nn.Module, pretrained: bool) -> None:
    """Refuse, as a `UserError`, what stands after an encoder and is not theirs."""
    from unveil.decoders import LinearDecoder

    if not pretrained:
        _transformers.linear_head(parts.head)
        if (encoder.norm is None) != (encoder.pooling == "mean"):
            raise UserError(_transformers.refusal(["it pools in another way than its last norm lets theirs"]))
    elif not isinstance(parts.decoder, LinearDecoder) or encoder.norm is None or encoder.mask_token is None:
        wrong = _transformers.refusal(
            [f"it predicts by a {type(parts.decoder).__name__}, or has no token for the masked"]
        )
        raise UserError(f"{wrong} Or export the encoder alone: --part encoder.")


def _published(objective: nn.Module, encoder: Any) -> State:
    """Our state under the published names; queries, keys and values are together."""
    theirs = {ours: name for name, ours in NAMES.items()}
    state = Reader(objective.state_dict()).renamed(theirs)
    state = {re.sub(r"\.scale([12])\.gamma$", r".gamma_\1", name): value for name, value in state.items()}
    state["patch_embed.proj.weight"] = _vit.convolution(encoder.embed.weight, encoder.patchify.size)
    bias = encoder.attention_bias
    if bias is None:
        state["pos_embed"] = _transformers.table_with_class(encoder.positions)
    elif isinstance(bias, nn.ModuleList):
        state |= {f"blocks.{number}.attn.{TABLE}": one.get_parameter("table") for number, one in enumerate(bias)}
    else:
        state[f"rel_pos_bias.{TABLE}"] = bias.table
    return state
