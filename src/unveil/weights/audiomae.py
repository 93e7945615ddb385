"""facebookresearch/AudioMAE: `models_mae` (pre-training, also its encoder alone) and `models_vit` (fine-tuned)."""

from __future__ import annotations

from typing import Any

import torch

from unveil.errors import UserError
from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State
from unveil.weights.mae import DECODER, ENCODER

LICENCE = "CC-BY-NC-4.0 (facebookresearch/AudioMAE; its README says CC-BY-4.0)"

#: Frames in a second.
FRAMES = 100


def convert(
    state: State, num_heads: int | None = None, decoder_num_heads: int = 16, bins: int = 128, **flags: Any
) -> Converted:
    """See `unveil.weights.convert`. Fixed position tables may be absent: they are computed for the `seconds` asked for."""
    given = Reader(state)
    weight = given["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight, 2)[0]
    if weight.shape[1] != 1:
        raise UserError(f"The checkpoint's patches have {weight.shape[1]} channels, those of a filter bank one.")
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch, "bins": bins, "positions": "transposed"}
    # The perceptron of relative positions stands beside the attention here, not in it.
    ours = {name.replace(".attn.meta_mlp.", ".bias.mlp."): x for name, x in given.renamed(ENCODER | DECODER).items()}
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = given["cls_token"]
    if "pos_embed" in given:
        # The class token has a row of its own in the table; here it is part of the token.
        table = given["pos_embed"]
        ours["encoder.class_token"] = given["cls_token"] + table[:, :1]
        ours["encoder.positions.table"] = table[0, 1:]
        grid = _grid(len(table[0]) - 1, bins, patch)
        found["seconds"] = grid[0] * patch / FRAMES
        ours["encoder.positions.native"] = torch.tensor(grid)
    if "decoder_pos_embed" in given:
        ours["decoder.positions.table"] = given["decoder_pos_embed"][0, 1:]
        grid = _grid(len(ours["decoder.positions.table"]), bins, patch)
        ours["decoder.positions.native"] = torch.tensor(grid)
    if "mask_token" in given:
        tau = "decoder_blocks.0.attn.tau"
        found["decoder"] = "window" if tau in given else "global"
        found["decoder_width"] = given["mask_token"].shape[-1]
        found["decoder_depth"] = _vit.depth(given, "decoder_blocks.")
        found["decoder_heads"] = len(given[tau]) if tau in given else decoder_num_heads
        return Converted("audiomae", found, ours, unused=given.unused, notes=notes)
    if "head.weight" in given:
        return Converted("audiomae:finetune", found | _vit.head(given), ours, unused=given.unused, notes=notes)
    notes.append("the file holds the encoder alone; the decoder is as initialised, so reconstructions mean nothing")
    return Converted("audiomae", found, ours, absent=("decoder.",), unused=given.unused, notes=notes)


def _grid(places: int, bins: int, patch: int) -> list[int]:
    """Of so many places, in time and in frequency.

    Raises:
        UserError: bands of so many bins do not divide them.
    """
    bands = bins // patch
    if not bands or bins % patch or places % bands:
        raise UserError(
            f"The checkpoint has {places} positions of patches of {patch}: they are no grid of {bins} bins. "
            "Give the bins of its filter bank (--bins)."
        )
    return [places // bands, bands]
