"""Tube masking: the same places in every frame, so that nothing can be copied from a neighbouring one (VideoMAE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.masking.mask import Mask, check_ratio


@dataclass(frozen=True)
class Tube:
    """Mask int(ratio × h × w) places of a frame, the same in all t of a grid (t, h, w) (Tong et al. 2022, §3.3).

    Args:
        ratio: share that is masked, in [0, 1).
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        frame = math.prod(grid[1:])
        order = torch.randperm(frame, generator=generator)
        masked, visible = order.tensor_split([int(self.ratio * frame)])
        first = torch.arange(grid[0])[:, None] * frame
        return Mask((first + visible.sort().values).flatten(), (first + masked.sort().values).flatten())
