"""MCG-NJU/VideoMAE: `modeling_pretrain` and `modeling_finetune`."""

from __future__ import annotations

from typing import Any, cast

from unveil.encoders import Size
from unveil.recipe import Recipe
from unveil.recipes import videomae
from unveil.weights import _vit
from unveil.weights._vit import State

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


def load(state: State, num_heads: int | None = None, **flags: Any) -> Recipe:
    """See `unveil.weights.load`. Positions are fixed, so `frames` and `crop` are needed unless they are 16 and 224."""
    pretrained = "mask_token" in state
    prefix = "encoder." if pretrained else ""
    weight = state[f"{prefix}patch_embed.proj.weight"]
    tubelet, patch = _vit.patch_size(weight)[:2]
    size = cast(Size, _vit.dimensions(len(weight), _vit.depth(state, f"{prefix}blocks."), num_heads))
    ours = _vit.rename(_vit.fold_layer_scale(state), PRETRAINED if pretrained else FINETUNED)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    flags |= {"patch": patch, "tubelet": tubelet}
    if not pretrained:
        return _vit.fill(videomae.finetune(size, len(state["head.weight"]), **flags), ours)
    return _vit.fill(videomae.videomae(size, decoder_depth=_vit.depth(state, "decoder.blocks."), **flags), ours)
