"""timm's `VisionTransformer` with a class token (also DeiT and AugReg weights as timm names them)."""

from __future__ import annotations

from typing import Any, cast

from unveil.encoders import Size
from unveil.recipe import Recipe
from unveil.recipes import vit
from unveil.weights import _vit
from unveil.weights._vit import State

NAMES = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "head.": "head.linear.",
}


def load(state: State, num_heads: int | None = None, **flags: Any) -> Recipe:
    """See `unveil.weights.load`."""
    weight = state["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight)[0]
    size = cast(Size, _vit.dimensions(len(weight), _vit.depth(state, "blocks."), num_heads))
    ours = _vit.rename(state, NAMES)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    ours["encoder.positions.table"] = state["pos_embed"][0, 1:]
    flags.setdefault("crop", _vit.side(state["pos_embed"].shape[1] - 1, patch))
    return _vit.fill(vit.vit(size, len(state["head.weight"]), patch=patch, **flags), ours)
