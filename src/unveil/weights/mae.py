"""facebookresearch/mae: `models_mae` (pre-training, also its encoder alone) and `models_vit` (fine-tuned)."""

from __future__ import annotations

from typing import Any

import torch

from unveil.weights import _vit
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


def convert(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Fixed position tables may be absent: they are computed for the `crop` asked for."""
    given = Reader(state)
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
