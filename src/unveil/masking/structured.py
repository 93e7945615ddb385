"""Structured masking of a spectrogram: whole stretches of time and whole bands of frequency (Audio-MAE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.masking.mask import Mask, check_ratio


@dataclass(frozen=True)
class Structured:
    """Hide rows and columns of a grid (time, frequency): what is visible is where a visible row and a visible column cross.

    Of each axis int(size × (1 - ratio)) stay, chosen uniformly, and one at least (Huang et al. 2022, section 3).

    Args:
        time: share of the rows that is masked, in [0, 1).
        frequency: share of the columns, in [0, 1).
    """

    time: float
    frequency: float

    def __post_init__(self) -> None:
        check_ratio(self.time)
        check_ratio(self.frequency)

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        hidden = torch.zeros(*grid, dtype=torch.bool)
        for axis, ratio in enumerate((self.time, self.frequency)):
            order = torch.randperm(grid[axis], generator=generator)
            hidden.index_fill_(axis, order[max(1, int(grid[axis] * (1 - ratio))) :], True)
        flat = hidden.flatten()
        return Mask(*(part.nonzero()[:, 0] for part in (~flat, flat)))
