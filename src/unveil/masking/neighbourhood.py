"""One region of space is hidden whole: groups of points that lie about one of them (MAE3D; Point-BERT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unveil.masking.mask import Mask, Masker, check_ratio


@dataclass(frozen=True)
class Neighbourhood:
    """Hide the int(ratio × N) places that lie nearest to a random one of them, itself among these.

    Args:
        ratio: share that is masked, in [0, 1).
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def among(self, places: Tensor) -> Masker:
        """The masker of one sample, whose tokens lie at places [N, K]."""

        def mask(grid: Sequence[int], generator: torch.Generator) -> Mask:
            number = len(places)
            middle = places[torch.randint(number, (), generator=generator)]
            order = (places - middle).square().sum(1).sort(stable=True).indices
            masked, visible = order.tensor_split([int(number * self.ratio)])
            return Mask(visible.sort().values, masked.sort().values)

        return mask
