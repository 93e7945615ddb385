"""A clip's mask or an image's, by the grid's length in time (OmniMAE hides more of a clip than of an image)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.masking.mask import Mask, Masker


@dataclass(frozen=True)
class ByLength:
    """One masker for grids (t, h, w) of a single place in time, which is all that an image has; another for longer ones.

    Args:
        still: of a single place.
        moving: of several.
    """

    still: Masker
    moving: Masker

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        return (self.still if grid[0] == 1 else self.moving)(grid, generator)
