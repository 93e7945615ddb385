"""facebookresearch/mae_st: `models_mae` (pre-training) and `models_vit` (fine-tuned)."""

from __future__ import annotations

from typing import Any, cast

from unveil.encoders import Size
from unveil.recipe import Recipe
from unveil.recipes import mae_st
from unveil.weights import _vit
from unveil.weights._vit import State

ENCODER = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
}
PRETRAINED = {
    "norm.": "encoder.norm.",
    "mask_token": "decoder.mask_token",
    "decoder_embed.": "decoder.embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.head.",
}
FINETUNED = {"norm.": "encoder.fc_norm.", "head.": "head.linear."}


def load(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Recipe:
    """See `unveil.weights.load`. With joint positions `frames` or `crop` is needed unless they are 16 and 224."""
    weight = state["patch_embed.proj.weight"]
    tubelet, patch = _vit.patch_size(weight)[:2]
    size = cast(Size, _vit.dimensions(len(weight), _vit.depth(state, "blocks."), num_heads))
    pretrained = "mask_token" in state
    flags |= {"patch": patch, "tubelet": tubelet}
    flags |= {"class_token": "cls_token" in state, "separable": "pos_embed_spatial" in state}
    if flags["separable"]:
        flags.setdefault("frames", state["pos_embed_temporal"].shape[1] * tubelet)
        flags.setdefault("crop", _vit.side(state["pos_embed_spatial"].shape[1], patch))
    ours = _vit.rename(_vit.fuse_qkv(state), ENCODER | (PRETRAINED if pretrained else FINETUNED))
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours |= _positions(state, "", "encoder.")
    if not pretrained:
        return _vit.fill(mae_st.finetune(size, len(state["head.weight"]), **flags), ours)
    ours |= _positions(state, "decoder_", "decoder.")
    predicted = len(state["decoder_pred.weight"]) // (patch * patch * 3)
    recipe = mae_st.mae_st(
        size,
        target_tubelet=predicted,
        decoder_width=state["mask_token"].shape[-1],
        decoder_depth=_vit.depth(state, "decoder_blocks."),
        decoder_heads=decoder_num_heads,
        **flags,
    )
    return _vit.fill(recipe, ours)


def _positions(state: State, theirs: str, ours: str) -> State:
    """Tables and class token; the class token's own position becomes part of it."""
    converted = {}
    if f"{theirs}pos_embed_spatial" in state:
        converted[f"{ours}positions.parts.0.table"] = state[f"{theirs}pos_embed_spatial"][0]
        converted[f"{ours}positions.parts.1.table"] = state[f"{theirs}pos_embed_temporal"][0]
        place = state.get(f"{theirs}pos_embed_class")
    else:
        table = state[f"{theirs}pos_embed"]
        first = 1 if f"{theirs}cls_token" in state else 0
        converted[f"{ours}positions.table"], place = table[0, first:], table[:, :1]
    if f"{theirs}cls_token" in state and place is not None:
        converted[f"{ours}class_token"] = state[f"{theirs}cls_token"] + place
    return converted
