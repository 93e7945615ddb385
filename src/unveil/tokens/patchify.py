"""Cut a signal into patches: one class for 1, 2 and 3 axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from unveil.errors import UserError
from unveil.tokens.grid import coordinates
from unveil.tokens.tokens import Tokens


class Tokenizer(Protocol):
    """Signals → raw tokens; of a signal without a grid (points), the grid is the number of its groups."""

    @property
    def width(self) -> int:
        """Values in a raw token."""
        ...

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The grid of a signal of this shape."""
        ...

    def __call__(self, x: Tensor) -> Tokens: ...


class Patchify:
    """`[B, C, *S] → Tokens` of raw patches.

    Inside a patch the values are ordered (axes of the patch…, channel), channel fastest, as MAE, MAE-ST and VideoMAE
    order their targets.

    Args:
        size: extent of a patch along each axis: `Patchify(2, 16, 16, channels=3)` makes tubelets.
        channels: of the signal.
    """

    def __init__(self, *size: int, channels: int):
        self.size = size
        self.channels = channels

    def __repr__(self) -> str:
        return f"Patchify({', '.join(map(str, self.size))}, channels={self.channels})"

    @property
    def width(self) -> int:
        """Values in a patch."""
        return math.prod(self.size) * self.channels

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The grid that a signal of this shape (its last axes are looked at) is cut into.

        Raises:
            UserError: the patch does not divide the signal.
        """
        sizes = tuple(shape)[-len(self.size) :]
        if len(sizes) != len(self.size) or any(s % p or s < p for s, p in zip(sizes, self.size, strict=True)):
            raise UserError(
                f"A signal of {' × '.join(map(str, sizes))} cannot be cut into patches of {' × '.join(map(str, self.size))}: "
                "choose --crop, --patch, --frames and --tubelet so that one divides the other."
            )
        return tuple(s // p for s, p in zip(sizes, self.size, strict=True))

    def __call__(self, x: Tensor) -> Tokens:
        """Signal [B, C, *S] → tokens with x [B, N, P], places in row-major order."""
        k = len(self.size)
        if x.ndim != k + 2 or x.shape[1] != self.channels:
            raise ValueError(f"{self} takes [B, {self.channels}, {k} axes], not {tuple(x.shape)}")
        grid = self.grid(x.shape)
        split = x.reshape(*x.shape[:2], *(n for pair in zip(grid, self.size, strict=True) for n in pair))
        cells, inside = range(2, 2 + 2 * k, 2), range(3, 3 + 2 * k, 2)
        patches = split.permute(0, *cells, *inside, 1).reshape(x.shape[0], math.prod(grid), self.width)
        return Tokens(patches, coordinates(grid, x.device).expand(x.shape[0], -1, -1), grid)

    def join(self, patches: Tensor, grid: Sequence[int]) -> Tensor:
        """The inverse: patches [B, N, P] of a whole grid → signal [B, C, *S]."""
        k = len(self.size)
        split = patches.reshape(patches.shape[0], *grid, *self.size, self.channels)
        order = [axis for pair in zip(range(1, 1 + k), range(1 + k, 1 + 2 * k), strict=True) for axis in pair]
        sizes = [g * p for g, p in zip(grid, self.size, strict=True)]
        return split.permute(0, 1 + 2 * k, *order).reshape(patches.shape[0], self.channels, *sizes)
