"""Cube masking: blocks in space that last for some time (MaskFeat on clips)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.masking.block import Block, Box, fill, hidden_number, rectangle
from unveil.masking.mask import Mask


@dataclass(frozen=True)
class Cube(Block):
    """Hide boxes of time and space until round(ratio × t × h × w) places are hidden (Wei et al. 2022, section 5.1).

    A box has the shape of a block in space, of a fifth of a frame to all of it, and lasts from one place in time to all of
    them. Published on a grid of 8 × 7 × 7 that is coarser than the network's: the encoder's `mask_grid` says which.

    Args:
        ratio: share that is masked, in [0, 1).
        count: how many places are masked, instead of a share.
        smallest: places that a box has at least in every frame; a fifth of the frame unless given.
        aspect: as of a block.
    """

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        time, *frame = grid
        num = hidden_number(math.prod(grid), self.ratio, self.count)
        smallest = math.prod(frame) // 5 if self.smallest is None else self.smallest

        def propose(dice: random.Random, missing: int) -> Box | None:
            base = rectangle(dice, frame, dice.uniform(smallest, math.prod(frame)), self.aspect)
            length = dice.randint(1, time)
            if base is None:
                return None
            return Box((dice.randint(0, time - length), *base.corner), (length, *base.size))

        return fill(grid, num, propose, attempts=100, generator=generator)
