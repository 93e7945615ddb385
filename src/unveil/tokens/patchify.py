"""Cut a signal into patches: one class for 1, 2 and 3 axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from unveil.errors import UserError
from unveil.tokens.grid import coordinates, unravel
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

    def prepared(self, x: Tensor) -> Tensor:
        """What is cut: the filter bank of a waveform, anything else as it is. Prepared once more it stays the same."""
        ...

    def restored(self, x: Tensor) -> Tensor:
        """The way back from what was `prepared`, as far as there is one: for people to listen to."""
        ...

    def __call__(self, x: Tensor, indices: Tensor | None = None) -> Tokens:
        """The tokens of a signal, or of some of its places alone: flat grid indices [B, n]."""
        ...


class Plain:
    """Of a tokenizer that cuts the signal as it is."""

    def prepared(self, x: Tensor) -> Tensor:
        """The signal as it is."""
        return x

    def restored(self, x: Tensor) -> Tensor:
        """The same."""
        return x


class Patchify(Plain):
    """`[B, C, *S] → Tokens` of raw patches.

    Inside a patch the values are ordered (axes of the patch…, channel), channel fastest, as MAE, MAE-ST and VideoMAE
    order their targets.

    Args:
        size: extent of a patch along each axis: `Patchify(2, 16, 16, channels=3)` makes tubelets.
        channels: of the signal.
        stride: from one patch to the next along each axis; the patch's size by default. Smaller: patches overlap, and
            there are more of them.
    """

    def __init__(self, *size: int, channels: int, stride: Sequence[int] | None = None):
        self.size = size
        self.channels = channels
        self.stride = tuple(size if stride is None else stride)
        if len(self.stride) != len(size) or any(not 1 <= s <= p for s, p in zip(self.stride, size, strict=True)):
            raise ValueError(f"patches of {size} cannot follow each other at a stride of {self.stride}")

    def __repr__(self) -> str:
        overlap = "" if self.stride == self.size else f", stride={self.stride}"
        return f"Patchify({', '.join(map(str, self.size))}, channels={self.channels}{overlap})"

    @property
    def width(self) -> int:
        """Values in a patch."""
        return math.prod(self.size) * self.channels

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The grid that a signal of this shape (its last axes are looked at) is cut into.

        Raises:
            UserError: the patches leave a part of the signal over.
        """
        sizes = tuple(shape)[-len(self.size) :]
        cut = list(zip(sizes, self.size, self.stride, strict=False))
        if len(sizes) != len(self.size) or any(s < p or (s - p) % step for s, p, step in cut):
            overlap = "" if self.stride == self.size else f" that begin every {' × '.join(map(str, self.stride))}"
            raise UserError(
                f"A signal of {' × '.join(map(str, sizes))} cannot be cut into patches of {' × '.join(map(str, self.size))}"
                f"{overlap}: choose --crop, --patch, --frames and --tubelet so that one divides the other."
            )
        return tuple((s - p) // step + 1 for s, p, step in cut)

    def __call__(self, x: Tensor, indices: Tensor | None = None) -> Tokens:
        """Signal [B, C, *S] → tokens with x [B, N, P], places in row-major order.

        With `indices` [B, n], flat grid indices, the patches there [B, n, P]; no others are copied.
        """
        grid = self.grid(x.shape)
        if indices is not None:
            return Tokens(self.cells(x, indices).flatten(2), unravel(indices, grid), grid)
        patches = self._cells(x).reshape(x.shape[0], math.prod(grid), self.width)
        return Tokens(patches, coordinates(grid, x.device).expand(x.shape[0], -1, -1), grid)

    def cells(self, x: Tensor, indices: Tensor) -> Tensor:
        """The patches at flat grid indices [B, n], not flattened: [B, n, *size, C], in memory as in the signal, channel by channel."""
        sample = torch.arange(x.shape[0], device=x.device)[:, None]
        return self._cells(x)[sample, *unravel(indices, self.grid(x.shape)).unbind(-1)]

    def _cells(self, x: Tensor) -> Tensor:
        """A view of the signal, [B, *grid, *size, C]."""
        k, grid = len(self.size), self.grid(x.shape)
        if x.ndim != k + 2 or x.shape[1] != self.channels:
            raise ValueError(f"{self} takes [B, {self.channels}, {k} axes], not {tuple(x.shape)}")
        if self.stride != self.size:
            for axis, (size, step) in enumerate(zip(self.size, self.stride, strict=True), start=2):
                x = x.unfold(axis, size, step)  # [B, C, *grid, *size]
            return x.movedim(1, -1)
        split = x.reshape(*x.shape[:2], *(n for pair in zip(grid, self.size, strict=True) for n in pair))
        return split.permute(0, *range(2, 2 + 2 * k, 2), *range(3, 3 + 2 * k, 2), 1)

    def join(self, patches: Tensor, grid: Sequence[int]) -> Tensor:
        """The inverse: patches [B, N, P] of a whole grid → signal [B, C, *S].

        Raises:
            ValueError: patches that overlap have none.
        """
        if self.stride != self.size:
            raise ValueError(f"{self}: patches that overlap cannot be put together")
        k = len(self.size)
        split = patches.reshape(patches.shape[0], *grid, *self.size, self.channels)
        order = [axis for pair in zip(range(1, 1 + k), range(1 + k, 1 + 2 * k), strict=True) for axis in pair]
        sizes = [g * p for g, p in zip(grid, self.size, strict=True)]
        return split.permute(0, 1 + 2 * k, *order).reshape(patches.shape[0], self.channels, *sizes)


def resample(weight: Tensor, size: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Embedding of patches of one size → of another [D, P] → [D, P'], so that resized patches embed as before.

    A patch that was interpolated to the new size gives, with the new weight, what the patch itself gave with the old one,
    exactly where it grew and nearest in squares where it shrank (Beyer et al. 2023, FlexiViT, §3.4). From a patch of one
    frame this is I3D's inflation: the weights repeat along time and are divided by its length.

    Args:
        weight: values of a patch in the order of `Patchify`, channel fastest.
        size, wanted: extents of the patch before and after; where `size` has fewer axes, its first ones were 1.
    """
    size = (1,) * (len(wanted) - len(size)) + tuple(size)
    kernel = weight.double().unflatten(1, (*size, -1))
    for axis, (before, after) in enumerate(zip(size, wanted, strict=True), start=1):
        if before != after:
            unit = torch.eye(before, dtype=torch.float64, device=weight.device)
            enlarge = functional.interpolate(unit[None], size=after, mode="linear")[0]  # [before, after]
            kernel = (kernel.movedim(axis, -1) @ torch.linalg.pinv(enlarge).T).movedim(-1, axis)
    return kernel.flatten(1).to(weight.dtype)
