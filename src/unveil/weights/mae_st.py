"""facebookresearch/mae_st: `models_mae` (pre-training, also its encoder alone) and `models_vit` (fine-tuned)."""

from __future__ import annotations

from typing import Any

import torch

from unveil.errors import UserError
from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (facebookresearch/mae_st)"

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


def convert(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Joint positions do not tell time from space: `frames` and `crop` may have to."""
    given = Reader(_vit.fuse_qkv(state))
    weight = given["patch_embed.proj.weight"]
    tubelet, patch = _vit.patch_size(weight, 3)[:2]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch, "tubelet": tubelet}
    found |= {"class_token": "cls_token" in given, "separable": "pos_embed_spatial" in given}
    grid = _grid(given, tubelet, patch, flags)
    found |= {"frames": grid[0] * tubelet, "crop": grid[1] * patch}
    pretrained = "head.weight" not in given
    ours = given.renamed(ENCODER | (PRETRAINED if pretrained else FINETUNED))
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours |= _positions(given, "", "encoder.", grid)
    if not pretrained:
        return Converted("mae_st:finetune", found | _vit.head(given), ours, unused=given.unused, notes=notes)
    if "mask_token" not in given:
        notes.append("the file holds the encoder alone; the decoder is as initialised, so reconstructions mean nothing")
        return Converted("mae_st", found, ours, absent=("decoder.",), unused=given.unused, notes=notes)
    ours |= _positions(given, "decoder_", "decoder.", grid)
    found["target_tubelet"] = len(given["decoder_pred.weight"]) // (patch * patch * 3)
    found["decoder_width"] = given["mask_token"].shape[-1]
    found["decoder_depth"] = _vit.depth(given, "decoder_blocks.")
    found["decoder_heads"] = decoder_num_heads
    return Converted("mae_st", found, ours, unused=given.unused, notes=notes)


def _grid(given: Reader, tubelet: int, patch: int, flags: dict[str, Any]) -> tuple[int, int, int]:
    """Times, rows and columns of the checkpoint's positions.

    Raises:
        UserError: a joint table whose division neither `frames` and `crop` nor a crop of 224 tells.
    """
    if "pos_embed_spatial" in given:
        row = _vit.side(given["pos_embed_spatial"].shape[1], 1)
        return given["pos_embed_temporal"].shape[1], row, row
    num = given["pos_embed"].shape[1] - ("cls_token" in given)
    for frames, crop in ((flags.get("frames", 16), flags.get("crop", 224)), (None, 224)):
        row = crop // patch
        times = frames // tubelet if frames else num // row**2
        if row and times * row**2 == num:
            return times, row, row
    raise UserError(
        f"The checkpoint has one table of {num} positions for time and space: give frames and crop (--frames, --crop) as it "
        "was trained."
    )


def _positions(given: Reader, theirs: str, ours: str, grid: tuple[int, ...]) -> State:
    """Tables and class token; the class token's own position becomes part of it."""
    converted = {}
    if f"{theirs}pos_embed_spatial" in given:
        converted[f"{ours}positions.parts.0.table"] = given[f"{theirs}pos_embed_spatial"][0]
        converted[f"{ours}positions.parts.1.table"] = given[f"{theirs}pos_embed_temporal"][0]
        converted[f"{ours}positions.parts.0.native"] = torch.tensor(grid[1:])
        converted[f"{ours}positions.parts.1.native"] = torch.tensor(grid[:1])
        place = given.get(f"{theirs}pos_embed_class")
    else:
        table = given[f"{theirs}pos_embed"]
        first = 1 if f"{theirs}cls_token" in given else 0
        converted[f"{ours}positions.table"], place = table[0, first:], table[:, :1]
        converted[f"{ours}positions.native"] = torch.tensor(grid)
    if f"{theirs}cls_token" in given and place is not None:
        converted[f"{ours}class_token"] = given[f"{theirs}cls_token"] + place
    return converted
