"""Attention within windows of a grid, which are shifted from block to block (Liu et al. 2021, Swin Transformer)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.layers.attention import Attention
from unveil.layers.block import LayerNorm
from unveil.layers.mlp import Mlp
from unveil.layers.relative_bias import ContinuousPositionBias
from unveil.tokens import coordinates


class Windows(NamedTuple):
    """How a grid is cut into windows.

    A grid that windows do not divide is padded at its ends, and nothing attends to the padding. Along an axis that is no longer
    than a window, the window is as long as the axis, and is not shifted.

    Attributes:
        grid: sizes of what is cut.
        size: of a window.
        shift: by how many places windows begin later, along each axis; what falls out in front joins the end.
        whole: the padded grid, a multiple of a window along each axis.
        mask: which places of a window may attend to which [W, n, n] bool: not to padding, nor from one end of the grid to
            the other, where a shift brought the two together. Every place may attend to itself. None where all may.
    """

    grid: tuple[int, ...]
    size: tuple[int, ...]
    shift: tuple[int, ...]
    whole: tuple[int, ...]
    mask: Tensor | None

    @classmethod
    def over(
        cls, grid: Sequence[int], size: Sequence[int], shift: Sequence[int], device: torch.device | None = None
    ) -> Windows:
        """The windows of a grid, of at most this size and shift.

        Raises:
            ValueError: grid, size and shift differ in their number of axes, or a shift is not less than a window.
        """
        if not len(grid) == len(size) == len(shift) or any(not 0 <= s < w for s, w in zip(shift, size, strict=True)):
            raise ValueError(f"windows of {tuple(size)} shifted by {tuple(shift)} do not fit a grid of {tuple(grid)}")
        shift = tuple(0 if g <= w else s for g, w, s in zip(grid, size, shift, strict=True))
        size = tuple(min(g, w) for g, w in zip(grid, size, strict=True))
        whole = tuple(-(-g // w) * w for g, w in zip(grid, size, strict=True))
        windows = cls(tuple(grid), size, shift, whole, None)
        return windows._replace(mask=windows._allowed(device)) if any(shift) or whole != windows.grid else windows

    def cut(self, x: Tensor) -> Tensor:
        """Tokens of the grid in row-major order [B, N, D] → window by window [B, W, n, D]."""
        x = x.unflatten(1, self.grid)
        if self.whole != self.grid:
            lacking = [w - g for w, g in zip(self.whole, self.grid, strict=True)]
            x = functional.pad(x, (0, 0, *(n for end in reversed(lacking) for n in (0, end))))
        if any(self.shift):
            x = x.roll([-s for s in self.shift], self._axes)
        return self._cells(x)

    def join(self, x: Tensor) -> Tensor:
        """The inverse: [B, W, n, D] → [B, N, D]."""
        axes = len(self.grid)
        numbers = [w // s for w, s in zip(self.whole, self.size, strict=True)]
        x = x.unflatten(2, self.size).unflatten(1, numbers)
        order = [axis for pair in zip(range(1, 1 + axes), range(1 + axes, 1 + 2 * axes), strict=True) for axis in pair]
        x = x.permute(0, *order, -1).reshape(x.shape[0], *self.whole, -1)
        if any(self.shift):
            x = x.roll(self.shift, self._axes)
        for axis, extent in enumerate(self.grid, start=1):
            x = x.narrow(axis, 0, extent)
        return x.flatten(1, axes)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + len(self.grid)))

    def _cells(self, x: Tensor) -> Tensor:
        """The padded grid, shifted [B, *whole, D] → [B, W, n, D]."""
        axes = len(self.grid)
        for axis, extent in reversed([*enumerate(self.size, start=1)]):
            x = x.unflatten(axis, (-1, extent))
        cells, inside = range(1, 1 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
        return x.permute(0, *cells, *inside, -1).flatten(1 + axes, 2 * axes).flatten(1, axes)

    def _allowed(self, device: torch.device | None) -> Tensor:
        places = coordinates(self.whole, device) + torch.tensor(self.shift, device=device)
        whole, grid = torch.tensor(self.whole, device=device), torch.tensor(self.grid, device=device)
        wrapped = places >= whole
        real = (places % whole < grid).all(-1, keepdim=True)
        cells = self._cells(torch.cat([wrapped, real], dim=-1)[None].unflatten(1, self.whole))[0]  # [W, n, K + 1]
        together = (cells[:, :, None, :-1] == cells[:, None, :, :-1]).all(-1)
        itself = torch.eye(cells.shape[1], dtype=torch.bool, device=device)
        return (together & cells[:, None, :, -1]) | itself


class WindowBlock(nn.Module):
    """x + norm(attention within windows(x)), then x + norm(mlp(x)): norms stand behind the branches (Swin Transformer V2).

    Attention is by cosines, with a `ContinuousPositionBias`.

    Args:
        width, heads: of the attention.
        axes: of the grid.
        mlp_ratio: hidden width of the perceptron, in widths.
        norm: width → norm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        axes: int = 2,
        mlp_ratio: float = 4.0,
        norm: Callable[[int], nn.Module] = LayerNorm,
    ):
        super().__init__()
        self.attn = Attention(width, heads, cosine=True)
        self.bias = ContinuousPositionBias(axes, heads)
        self.norm1 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.norm2 = norm(width)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Tokens of a whole grid in row-major order [B, N, D] → [B, N, D]."""
        scores = self.bias(windows.size)
        if windows.mask is not None:
            scores = scores.masked_fill(~windows.mask[:, None], float("-inf"))  # [W, heads, n, n]
        x = x + self.norm1(windows.join(self.attn(windows.cut(x), mask=scores)))
        return x + self.norm2(self.mlp(x))
