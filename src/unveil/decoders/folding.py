"""From what is visible to the whole cloud: centres first, then a sheet folded about each (MAE3D; FoldingNet, Yang et al. 2018)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unveil.decoders.transformer import TransformerDecoder
from unveil.errors import UserError
from unveil.tokens import Tokens

EDGE = 0.1
"""Half the side of the sheet."""


class Completed(NamedTuple):
    """A predicted cloud.

    Attributes:
        centres: of its groups [B, M, 3].
        points: group by group [B, M × size, 3].
        summary: the vector that all was made of [B, D].
    """

    centres: Tensor
    points: Tensor
    summary: Tensor


class FoldingDecoder(nn.Module):
    """All tokens, the masked ones too, become one vector; of it come the centres, and about each a square sheet of points.

    Args:
        trunk: over the visible tokens and mask tokens; of features, with `out_width=None`.
        width: of the trunk.
        groups: how many centres.
        size: points of a group, a square number.
        hidden: width of the perceptron of the centres.
        folding: width of the perceptron that folds.

    Raises:
        UserError: so many points make no square.
    """

    grid: Tensor

    def __init__(
        self, trunk: TransformerDecoder, width: int, groups: int, size: int, hidden: int = 1024, folding: int = 512
    ):
        super().__init__()
        side = math.isqrt(size)
        if side * side != size:
            raise UserError(f"--group {size}: a group is folded of a square sheet; choose a square number, such as 64.")
        self.trunk = trunk
        self.groups = groups
        self.centres = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, 3 * groups),
        )  # fmt: skip
        self.unfold = nn.Linear(width + 2 + 3, folding)
        self.fold = nn.Sequential(
            nn.BatchNorm1d(folding), nn.ReLU(),
            nn.Linear(folding, folding), nn.BatchNorm1d(folding), nn.ReLU(),
            nn.Linear(folding, 3),
        )  # fmt: skip
        # Not torch.linspace: transformers exchanges it while it loads a model, and if that is the first use of a device as a
        # context in a process, PyTorch takes the real one for no constructor from then on, and it stays on the CPU.
        steps = torch.arange(side) * (2 * EDGE / max(1, side - 1)) - EDGE
        grid = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], dim=1)  # [size, 2], columns first
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, tokens: Tokens, coords: Tensor) -> Completed:
        """The encoder's tokens, and the places of what is masked [B, Nq, 3]."""
        summary = self.trunk(tokens, coords, visible_too=True).max(dim=1).values
        centres = self.centres(summary).unflatten(1, (3, self.groups)).transpose(1, 2)
        # One linear layer of [summary, place on the sheet, centre]: each part is computed once, not once for every point.
        of_summary, of_sheet, of_centre = self.unfold.weight.split([summary.shape[1], 2, 3], dim=1)
        begun = (
            (summary @ of_summary.T + self.unfold.bias)[:, None, None]
            + (centres @ of_centre.T)[:, :, None]
            + self.grid.to(of_sheet.dtype) @ of_sheet.T
        )  # [B, M, size, folding]
        moved = self.fold(begun.flatten(0, 2)).unflatten(0, begun.shape[:3])
        return Completed(centres, (moved + centres[:, :, None]).flatten(1, 2), summary)
