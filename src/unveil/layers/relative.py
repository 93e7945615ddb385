"""Relative positions, one axis at a time (Li et al. 2022, MViTv2), as a bias or as channels of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Grid = tuple[int, ...]


class RelativePositions(nn.Module):
    """What the distance between a query and a key adds to their score, one axis at a time: q · R[distance] (MViTv2, eq. 4).

    Of grids of other sizes than the native ones the tables are interpolated; `adapt` does so with those of another network.
    Where queries and keys lie on grids of different sizes, distances are counted on the finer one.

    Args:
        sizes: of the finer of the native grids, along each axis.
        width: of a head.
    """

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        # The last axis first: a clip's space then has the names of an image's.
        self.tables = nn.ParameterList(torch.empty(2 * size - 1, width) for size in reversed(sizes))
        for table in self.tables:
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, q: Tensor, grid: Grid, key_grid: Grid) -> list[Tensor]:
        """
        Args:
            q: unscaled queries [B, heads, M + N, d] on `grid`.
            grid, key_grid: where queries and keys lie.

        Returns:
            for each axis what a query adds to its scores with the keys at each place along it [B, heads, *grid, keys].
        """
        places = q[:, :, q.shape[2] - math.prod(grid) :].unflatten(2, grid)
        terms = []
        for axis, (size, keys) in enumerate(zip(grid, key_grid, strict=True)):
            table = self._between(self.tables[len(grid) - 1 - axis], size, keys)
            rows = places.movedim(2 + axis, 2)
            found = rows.flatten(3, -2) @ table.to(q.dtype).transpose(1, 2)
            terms.append(found.unflatten(3, rows.shape[3:-1]).movedim(2, 2 + axis))
        return terms

    def _between(self, table: Tensor, queries: int, keys: int) -> Tensor:
        """Rows of the table for each pair of places along an axis [queries, keys, d]."""
        table = resize(table, 2 * max(queries, keys) - 1)
        finer = max(queries / keys, 1.0)
        q = torch.arange(queries, device=table.device)[:, None] * max(keys / queries, 1.0)
        k = torch.arange(keys, device=table.device)[None] * finer
        return table[(q - k + (keys - 1) * finer).long()]

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Interpolate saved tables of other lengths in place; returns the names of what was changed."""
        changed = []
        for number, own in enumerate(self.tables):
            name = f"{prefix}tables.{number}"
            table = state.get(name)
            if table is not None and table.ndim == 2 and len(table) != len(own) and table.shape[1] == own.shape[1]:
                state[name] = resize(table, len(own))
                changed.append(name)
        return changed


def resize(table: Tensor, length: int) -> Tensor:
    """Interpolate a table [L, d] → [length, d]."""
    if len(table) == length:
        return table
    return functional.interpolate(table.T[None].float(), size=length, mode="linear")[0].T.to(table.dtype)


def bias_of(terms: Sequence[Tensor], prefix: int) -> Tensor:
    """The sum of each axis's terms for every pair of places [B, heads, M + N, M + L]; nothing for class tokens."""
    axes = len(terms)
    total = sum(
        term[(..., *[slice(None) if other == axis else None for other in range(axes)])]
        for axis, term in enumerate(terms)
    )
    bias = cast(Tensor, total).flatten(2, 1 + axes).flatten(3)
    return functional.pad(bias, (prefix, 0, prefix, 0))


def channels_of(terms: Sequence[Tensor], prefix: int) -> tuple[Tensor, Tensor]:
    """More channels for queries [B, heads, M + N, E] and keys [M + L, E], whose products are `bias_of` the terms.

    A query brings its terms for each place along each axis, and a key picks its own: E is the sum of the key grid's sizes,
    and no matrix of all pairs is made.
    """
    axes = len(terms)
    key_grid = [term.shape[-1] for term in terms]
    picks = []
    for axis, size in enumerate(key_grid):
        unit = torch.eye(size, dtype=terms[0].dtype, device=terms[0].device)
        picks.append(
            unit.view([size if other in (axis, axes) else 1 for other in range(axes + 1)]).expand(*key_grid, -1)
        )
    queries = torch.cat([*terms], dim=-1).flatten(2, 1 + axes)
    keys = torch.cat(picks, dim=-1).flatten(0, axes - 1)
    return functional.pad(queries, (0, 0, prefix, 0)), functional.pad(keys, (0, 0, prefix, 0))
