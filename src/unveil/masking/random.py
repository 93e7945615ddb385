"""Uniform random masking: every place alike (MAE; in space-time: MAE-ST)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.masking.mask import Mask, check_ratio


@dataclass(frozen=True)
class Random:
    """Keep int(L × (1 - ratio)) of the grid's L places, chosen uniformly (He et al. 2022, §3).

    Args:
        ratio: share that is masked, in [0, 1).
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        num = math.prod(grid)
        order = torch.randperm(num, generator=generator)
        visible, masked = order.tensor_split([int(num * (1 - self.ratio))])
        return Mask(visible.sort().values, masked.sort().values)
