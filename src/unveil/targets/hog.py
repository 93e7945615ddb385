"""Histograms of oriented gradients of the masked patches (Dalal and Triggs 2005), as MaskFeat predicts them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unveil.tokens import Patchify


class HOG:
    """Which way edges run in the cells of a patch: `(batch, grid, indices [B, Nm]) → [B, Nm, C × bins × cells]`.

    In every cell of some pixels and every colour, the strength of the gradient is summed up in bins of its direction, of which
    opposite ones are the same; the bins of a cell have length 1 (Wei et al. 2022, section 3.2). A pixel counts for one bin
    alone. The order of values is (colour, bin, row of cells, column of cells), the last fastest. Computed in float32, on the
    device of the batch, from the patches asked for and the pixels around them.

    Where the signal is longer than the grid of patches, every so-manieth frame is predicted, the first one first.

    Args:
        patchify: the size of patches; along axes before height and width it is 1.
        key: of the signal in the batch.
        cell: side of a cell, in pixels.
        bins: directions.
        window: side of a Gaussian, tiled over the image, by which strengths are weighted; None for none, as published.

    Raises:
        ValueError: cells do not divide patches, or patches are longer than one frame.
    """

    exact = False

    def __init__(self, patchify: Patchify, key: str, cell: int = 8, bins: int = 9, window: int | None = None):
        *length, height, width = patchify.size
        if any(side % cell for side in (height, width)):
            raise ValueError(f"cells of {cell} pixels do not divide patches of {height} × {width}")
        if any(frames != 1 for frames in length):
            raise ValueError("gradients are of one frame: patches have a length of 1")
        self.patchify = patchify
        self.key = key
        self.cell = cell
        self.bins = bins
        self.window = window

    def __repr__(self) -> str:
        return f"HOG({self.patchify}, {self.key!r}, cell={self.cell}, bins={self.bins})"

    @property
    def width(self) -> int:
        """Values for each patch."""
        *_, height, width = self.patchify.size
        return self.patchify.channels * self.bins * (height // self.cell) * (width // self.cell)

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        windows, rows, columns = self._windows(batch, grid, indices)
        # The kernel [[1, 0, -1], [2, 0, -2], [1, 0, -1]] and its transpose, in two steps each.
        down = windows[..., :-2, :] + 2 * windows[..., 1:-1, :] + windows[..., 2:, :]
        across = windows[..., :-2] + 2 * windows[..., 1:-1] + windows[..., 2:]
        gx, gy = down[..., :-2] - down[..., 2:], across[..., :-2, :] - across[..., 2:, :]
        strength = (gx.square() + gy.square()).sqrt()
        if self.window is not None:
            strength = strength * self._weights(rows, columns, strength)
        direction = (torch.atan2(gx, gy) / math.pi * self.bins).floor().long() % self.bins
        # Not scatter_add: on GPUs its order, and so its rounding, is another every time.
        cells = (-1, self.cell)
        binned = [
            torch.where(direction == i, strength, 0).unflatten(-1, cells).sum(-1).unflatten(-2, cells).sum(-2)
            for i in range(self.bins)
        ]
        return functional.normalize(torch.stack(binned, dim=3), dim=3).flatten(2)

    def signal(self, batch: Mapping[str, Tensor], grid: Sequence[int]) -> Tensor:
        """The frames whose gradients are predicted [B, C, *S], in the batch's normalised units."""
        x = batch[self.key]
        for axis, (size, places) in enumerate(zip(self.patchify.size, grid, strict=True), start=2):
            step = -(-x.shape[axis] // (size * places))
            x = x[(slice(None),) * axis + (slice(None, None, step),)]
        return x

    def picture(self, predictions: Tensor, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        """Predictions [B, n, P] → patches [B, n, P'] in the batch's normalised units, for looking at.

        A cell becomes a star of lines, one along the edges of each direction, as bright as its bin is full, in its colour.
        They are not pixels, nor can pixels be had back from them.
        """
        *_, height, width = self.patchify.size
        sides = (self.bins, height // self.cell, width // self.cell)
        bins = predictions.float().unflatten(-1, (self.patchify.channels, *sides)).clamp(min=0)
        lines = self._lines().to(bins)
        drawn = torch.einsum("bnckij,kuv->bniujvc", bins, lines)
        return (4 * drawn.flatten(2) - 2).clamp(max=2)  # from dark to bright: the mean colour is at 0, its deviation 1

    def _windows(
        self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The patches asked for with one pixel around them [B, Nm, C, h + 2, w + 2], and their rows and columns [B, Nm]."""
        x = self.signal(batch, grid)
        if self.patchify.grid(x.shape) != tuple(grid):
            raise ValueError(
                f"{self} cuts the signal into {self.patchify.grid(x.shape)}, but was asked about the grid {tuple(grid)}"
            )
        b, c, *_, h, w = x.shape
        height, width = self.patchify.size[-2:]
        padded = functional.pad(x.float().reshape(b, -1, h, w), (1, 1, 1, 1), mode="reflect")
        views = padded.unflatten(1, (c, -1)).unfold(-2, height + 2, height).unfold(-2, width + 2, width)
        places, columns = indices.div(grid[-1], rounding_mode="floor"), indices % grid[-1]
        frames, rows = places.div(grid[-2], rounding_mode="floor"), places % grid[-2]
        samples = torch.arange(b, device=x.device)[:, None]
        return views[samples, :, frames, rows, columns], rows, columns

    def _weights(self, rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
        """The Gaussian at the pixels of patches [B, Nm, 1, h, w]; over the window it sums to 1."""
        assert self.window is not None
        n = torch.arange(self.window, device=like.device, dtype=like.dtype)
        bell = torch.exp(-((n - (self.window - 1) / 2) ** 2) / (2 * (self.window // 2) ** 2))
        bell = bell / bell.sum()
        along = []
        for number, side in ((rows, self.patchify.size[-2]), (columns, self.patchify.size[-1])):
            pixels = number[..., None] * side + torch.arange(side, device=like.device)
            along.append(bell[pixels % self.window])
        return (along[0][..., :, None] * along[1][..., None, :]).unsqueeze(2)

    def _lines(self) -> Tensor:
        """A line through the middle of a cell for each bin, at right angles to its gradient [bins, cell, cell]."""
        across = torch.arange(self.cell) - (self.cell - 1) / 2
        angle = (torch.arange(self.bins) + 0.5) * math.pi / self.bins
        distance = torch.sin(angle)[:, None, None] * across + torch.cos(angle)[:, None, None] * across[:, None]
        return (1 - distance.abs()).clamp(min=0)
