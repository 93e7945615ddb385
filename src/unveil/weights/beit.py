"""microsoft/unilm, beit: `modeling_pretrain` and `modeling_finetune`."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from unveil.errors import UserError
from unveil.weights import _vit
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
TABLE = "relative_position_bias_table"
INDEX = "relative_position_index"


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. A pre-trained checkpoint has no tokenizer, which was a file of its own.

    Raises:
        UserError: it has both kinds of positions, or those that blocks share before fine-tuning where it is fine-tuned.
    """
    given = Reader({name: value for name, value in state.items() if not name.endswith(INDEX)})
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
