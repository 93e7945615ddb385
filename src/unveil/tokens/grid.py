"""A grid is a tuple of K sizes; a place on it is a flat index (row-major) or K coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Grid = tuple[int, ...]


def unravel(indices: Tensor, grid: Sequence[int]) -> Tensor:
    """Flat indices [...] → coordinates [..., K], int64."""
    coords = []
    for size in reversed(grid):
        coords.append(indices % size)
        indices = indices // size
    return torch.stack(coords[::-1], dim=-1)


def ravel(coords: Tensor, grid: Sequence[int]) -> Tensor:
    """Coordinates [..., K] → flat indices [...], int64."""
    flat = coords[..., 0]
    for axis, size in enumerate(grid[1:], start=1):
        flat = flat * size + coords[..., axis]
    return flat


def coordinates(grid: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """The coordinates of every place of a grid, in row-major order: [N, K] int64."""
    return unravel(torch.arange(math.prod(grid), device=device), grid)


def refine(indices: Tensor, grid: Sequence[int], finer: Sequence[int]) -> Tensor:
    """The places of a finer grid that lie inside the given places of a coarser one.

    Encoders may draw masks on another grid than the one their features live on (MaskFeat's MViT: 8×7×7 and 8×14×14).

    Args:
        indices: flat indices [B, n] into `grid`.
        grid, finer: each size of `finer` is a multiple of the same size of `grid`.

    Returns:
        flat indices [B, n × cells] into `finer`, ascending when `indices` are.

    Raises:
        ValueError: the grids do not divide each other.
    """
    if tuple(grid) == tuple(finer):
        return indices
    if len(grid) != len(finer) or any(f % g for g, f in zip(grid, finer, strict=True)):
        raise ValueError(f"a mask drawn on the grid {tuple(grid)} cannot be refined to {tuple(finer)}")
    cells = [f // g for g, f in zip(grid, finer, strict=True)]
    corner = unravel(indices, grid) * indices.new_tensor(cells)
    places = corner[:, :, None] + coordinates(cells, indices.device)
    return ravel(places.flatten(1, 2), finer).sort(dim=1).values
