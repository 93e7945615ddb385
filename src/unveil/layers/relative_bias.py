"""Relative positions as one number for each distance and head: learned (Bao et al. 2022, BEiT; T5 and Swin before it), or computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unveil.layers.mlp import Mlp
from unveil.tokens import coordinates, ravel
from unveil.tokens.positions import resize

#: Rows behind those of the distances: class token → token, token → class token, class token → class token.
CLASS_ROWS = 3


class RelativePositionBias(nn.Module):
    """What the distance between two places adds to the score of their tokens: `(coords, grid, prefix) → [1 or B, heads, M + N, M + N]`.

    A table has a row for every distance on the native grid, along all axes at once, (2h - 1)(2w - 1) in an image. That of
    another grid is the table interpolated (bicubic over two axes), and so is one that was saved for another grid. (The
    released fine-tuning at other resolutions spaces the distances in a geometric series before it interpolates.)

    Args:
        grid: the native one.
        heads: of the attention.
        class_token: there is one in front; its three rows stand behind the others.
    """

    def __init__(self, grid: Sequence[int], heads: int, class_token: bool = True):
        super().__init__()
        self.grid = tuple(grid)
        self.class_rows = CLASS_ROWS if class_token else 0
        distances = math.prod(_distances(self.grid))
        self.table = nn.Parameter(torch.zeros(distances + self.class_rows, heads))
        self.register_buffer("native", torch.tensor(self.grid))

    def extra_repr(self) -> str:
        return f"grid={self.grid}, heads={self.table.shape[1]}"

    def forward(self, coords: Tensor, grid: Sequence[int], prefix: int) -> Tensor:
        """
        Args:
            coords: places of the tokens [B, N, K]; where N is all of the grid, they are in its order.
            grid: on which they lie.
            prefix: how many class tokens stand in front: one or none, as the table was made for.

        Raises:
            ValueError: a class token of which the table knows nothing, or none where it knows of one.
        """
        if prefix != (1 if self.class_rows else 0):
            raise ValueError(f"relative positions made for {1 if self.class_rows else 0} class tokens, not {prefix}")
        table = self._table(self.table, self.grid, tuple(grid))
        if coords.shape[1] == math.prod(grid):
            coords = coords[:1]  # the same in every sample
        return nn.functional.embedding(self.rows(coords, grid), table).permute(0, 3, 1, 2)

    def rows(self, coords: Tensor, grid: Sequence[int]) -> Tensor:
        """Which row of the grid's table a pair of tokens has, query by key [B, M + N, M + N] int64."""
        spans = _distances(grid)
        apart = coords[:, :, None] - coords[:, None] + coords.new_tensor(grid) - 1
        index = ravel(apart, spans)
        if self.class_rows:
            first = math.prod(spans)
            index = nn.functional.pad(index, (0, 0, 1, 0), value=first)
            index = nn.functional.pad(index, (1, 0, 0, 0), value=first + 1)
            corner = torch.zeros_like(index, dtype=torch.bool)
            corner[:, 0, 0] = True
            index = index.masked_fill(corner, first + 2)
        return index

    def _table(self, table: Tensor, grid: tuple[int, ...], asked: tuple[int, ...]) -> Tensor:
        if grid == asked:
            return table
        places, behind = table[: len(table) - self.class_rows], table[len(table) - self.class_rows :]
        return torch.cat([resize(places, _distances(grid), _distances(asked)), behind])

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Interpolate a saved table of another grid, in place; returns the names of what was changed."""
        native, table = state.get(f"{prefix}native"), state.get(f"{prefix}table")
        if native is None or table is None:
            return []
        grid = tuple(native.tolist())
        fits = len(grid) == len(self.grid) and len(table) == math.prod(_distances(grid)) + self.class_rows
        if grid == self.grid or not fits:
            return []
        state[f"{prefix}table"] = self._table(table, grid, self.grid)
        state[f"{prefix}native"] = torch.tensor(self.grid)
        return [f"{prefix}table"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.adapt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class ContinuousPositionBias(nn.Module):
    """What the distance of two places adds to the score of their tokens, as a perceptron says it: `(size) → [heads, N, N]`.

    It is asked about sign(d) · ln(1 + |d|) of the distance d along each axis, the query's place less the key's, so a window of
    any size has its numbers (Liu et al. 2022, Swin Transformer V2, section 3.3).

    Args:
        axes: of the window.
        heads: of the attention.
        hidden: width of the perceptron.
    """

    def __init__(self, axes: int, heads: int, hidden: int = 384):
        super().__init__()
        self.mlp = Mlp(axes, hidden, heads, act=nn.ReLU)

    def forward(self, size: Sequence[int]) -> Tensor:
        """Sizes of a window of N places → what is added, query by key."""
        device = self.mlp.fc1.weight.device
        spans, places = _distances(size), coordinates(size, device)
        last = places.new_tensor(size) - 1
        distances = (coordinates(spans, device) - last).to(self.mlp.fc1.weight.dtype)
        table = self.mlp(distances.sign() * distances.abs().log1p())
        rows = ravel(places[:, None] - places + last, spans)
        return nn.functional.embedding(rows, table).permute(2, 0, 1)


def _distances(grid: Sequence[int]) -> tuple[int, ...]:
    """How many there are along each axis."""
    return tuple(2 * size - 1 for size in grid)
