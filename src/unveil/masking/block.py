"""Block-wise masking: rectangles, so that what is hidden cannot be copied from next to it (BEiT; MaskFeat on images)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from unveil.errors import UserError
from unveil.masking.mask import Mask, check_ratio


class Box(NamedTuple):
    """Places corner … corner + size of a grid, along each of its axes."""

    corner: tuple[int, ...]
    size: tuple[int, ...]

    def bits(self, grid: Sequence[int]) -> int:
        """Its places as a set of bits: bit i is the flat index i."""
        bits, stride = 1, 1
        for start, length, side in reversed(list(zip(self.corner, self.size, grid, strict=True))):
            step = bits << (start * stride)
            bits = 0
            for _ in range(length):
                bits |= step
                step <<= stride
            stride *= side
        return bits


#: (random numbers, places that are still to be hidden) → a box, or None where what was drawn is none.
Propose = Callable[[random.Random, int], Box | None]


def rectangle(dice: random.Random, frame: Sequence[int], area: float, aspect: float) -> Box | None:
    """A rectangle of about this area, its height by its width log-uniform in [aspect, 1 / aspect], anywhere in a frame.

    None where it would be empty, or as high or as wide as the frame, which the published generators throw away.
    """
    ratio = math.exp(dice.uniform(math.log(aspect), -math.log(aspect)))
    size = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if any(not 0 < length < side for length, side in zip(size, frame, strict=True)):
        return None
    return Box(tuple(dice.randint(0, side - length) for length, side in zip(size, frame, strict=True)), size)


def fill(grid: Sequence[int], num: int, propose: Propose, attempts: int, generator: torch.Generator) -> Mask:
    """Hide boxes until exactly `num` places are hidden.

    The published generators stop short of their number where no box fits into what is left of it; batches need equal
    numbers. So the last box is cut there: of its places as many as are missing, row by row.

    Args:
        grid: sizes of the grid.
        num: places to hide.
        propose: draws a box.
        attempts: boxes that are drawn before one is cut.
        generator: where everything random comes from.
    """
    places = math.prod(grid)
    # Sets of bits and Python's generator: some 30 boxes for a sample, in the training loop's own time.
    dice = random.Random(int(torch.randint(2**62, (), generator=generator)))
    hidden, missing = 0, num
    while missing:
        for _ in range(attempts):
            box = propose(dice, missing)
            new = 0 if box is None else box.bits(grid) & ~hidden
            if 0 < new.bit_count() <= missing:
                break
        else:
            new = _cut(propose(dice, missing) or _anywhere(dice, grid), grid, hidden, missing)
        hidden |= new
        missing -= new.bit_count()
    flags = torch.tensor([int(bit) for bit in reversed(f"{hidden:0{places}b}")], dtype=torch.bool)
    return Mask((~flags).nonzero()[:, 0], flags.nonzero()[:, 0])


def _anywhere(dice: random.Random, grid: Sequence[int]) -> Box:
    """A box of any size: grids of one or two places along an axis have no others."""
    corner = tuple(dice.randrange(side) for side in grid)
    return Box(corner, tuple(dice.randint(1, side - start) for start, side in zip(corner, grid, strict=True)))


def _cut(box: Box, grid: Sequence[int], hidden: int, num: int) -> int:
    """At most `num` of a box's places that are not hidden yet, the first in the grid's order."""
    new = box.bits(grid) & ~hidden
    kept = 0
    while new and num:
        first = new & -new
        kept, new, num = kept | first, new ^ first, num - 1
    return kept


def hidden_number(places: int, ratio: float, count: int | None) -> int:
    """How many of so many places are hidden.

    Raises:
        UserError: none would be left.
    """
    num = round(places * ratio) if count is None else count
    if num >= places > 0:
        raise UserError(f"Of {places} places {num} cannot be hidden: choose a smaller --ratio, or a larger --crop.")
    return num


def check_shape(aspect: float, count: int | None, smallest: int | None) -> None:
    """
    Raises:
        ValueError: an aspect outside (0, 1], or a number below zero.
    """
    if not 0 < aspect <= 1:
        raise ValueError(f"the aspect of a block's flattest shape lies in (0, 1], not {aspect}")
    if min(0 if count is None else count, 1 if smallest is None else smallest - 1) < 0:
        raise ValueError("numbers of places are positive")


@dataclass(frozen=True)
class Block:
    """Hide rectangles until round(ratio × h × w) places are hidden (Bao et al. 2022, Algorithm 1; Wei et al. 2022).

    The last two axes of a grid are height and width; along others it is the same places everywhere, as in tubes.

    Args:
        ratio: share that is masked, in [0, 1).
        count: how many places of a frame are masked, instead of a share (BEiT: 75 of 196).
        smallest: places that a rectangle has at least (BEiT: 16); a fifth of what is masked unless given (MaskFeat).
        aspect: of the flattest rectangle, height by width; the steepest is its inverse.
    """

    ratio: float = 0.4
    count: int | None = None
    smallest: int | None = None
    aspect: float = 0.3

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check_shape(self.aspect, self.count, self.smallest)

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask:
        frame = tuple(grid[-2:])
        num = hidden_number(math.prod(frame), self.ratio, self.count)
        smallest = num // 5 if self.smallest is None else self.smallest

        def propose(dice: random.Random, missing: int) -> Box | None:
            return rectangle(dice, frame, dice.uniform(smallest, missing), self.aspect)

        first = fill(frame, num, propose, attempts=10, generator=generator)
        step = torch.arange(math.prod(grid[:-2]))[:, None] * math.prod(frame)
        return Mask(*((step + places).flatten() for places in first))
