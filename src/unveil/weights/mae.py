"""facebookresearch/mae: `models_mae` (pre-training) and `models_vit` (fine-tuned)."""

from __future__ import annotations

from typing import Any, cast

from unveil.encoders import Size
from unveil.recipe import Recipe
from unveil.recipes import mae
from unveil.weights import _vit
from unveil.weights._vit import State

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


def load(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Recipe:
    """See `unveil.weights.load`. Fixed position tables may be absent; then `crop` is needed unless it is 224."""
    weight = state["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight)[0]
    size = cast(Size, _vit.dimensions(len(weight), _vit.depth(state, "blocks."), num_heads))
    ours = _vit.rename(state, ENCODER | DECODER)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = state["cls_token"]
    if "pos_embed" in state:
        # The class token has a row of its own in the table; here it is part of the token.
        ours["encoder.class_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        ours["encoder.positions.table"] = state["pos_embed"][0, 1:]
        flags.setdefault("crop", _vit.side(state["pos_embed"].shape[1] - 1, patch))
    if "decoder_pos_embed" in state:
        ours["decoder.positions.table"] = state["decoder_pos_embed"][0, 1:]
    if "mask_token" not in state:
        pool = "mean" if "fc_norm.weight" in state else "class"
        classes = len(state["head.weight"])
        return _vit.fill(mae.finetune(size, classes, patch=patch, pool=pool, **flags), ours)
    recipe = mae.mae(
        size,
        patch=patch,
        decoder_width=state["mask_token"].shape[-1],
        decoder_depth=_vit.depth(state, "decoder_blocks."),
        decoder_heads=decoder_num_heads,
        **flags,
    )
    return _vit.fill(recipe, ours)
