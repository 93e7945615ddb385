"""Positions: what a token is told about its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.tokens.grid import coordinates, ravel

INTERPOLATION = {1: "linear", 2: "bicubic", 3: "trilinear"}


def sincos(coords: Tensor, width: int, first_axis_first: bool = False) -> Tensor:
    """Sines and cosines of coordinates [..., K] → [..., width], float32.

    The width is divided among the axes, the last axis first (in an image: the first half of the channels encodes the
    column, the second the row), or, where asked, the first (MoCo v3); each part is [sin…, cos…] with frequencies
    10000^(-i/n), as in MAE (He et al. 2022).
    Where the axes do not divide the width evenly, the first channels' axes take one frequency more.

    Raises:
        ValueError: the width is odd, or too small for the number of axes.
    """
    num_axes = coords.shape[-1]
    if width % 2 or width < 2 * num_axes:
        raise ValueError(f"sincos positions over {num_axes} axes need an even width of at least {2 * num_axes}")
    parts = []
    for part in range(num_axes):
        num = (width // 2 + num_axes - 1 - part) // num_axes
        omega = 10000.0 ** -(torch.arange(num, dtype=torch.float64, device=coords.device) / num)
        axis = part if first_axis_first else num_axes - 1 - part
        angle = coords[..., axis, None].double() * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1).float()


def flat_sincos(num: int, width: int) -> Tensor:
    """One sinusoid over `num` tokens in order: even channels sine, odd channels cosine → [num, width] (VideoMAE)."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(num, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def resize(table: Tensor, grid: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Interpolate a table of positions [prod(grid), D] → [prod(wanted), D].

    Raises:
        ValueError: the grids differ in their number of axes, or have more than three.
    """
    if len(grid) != len(wanted) or len(grid) not in INTERPOLATION:
        raise ValueError(f"positions of the grid {tuple(grid)} cannot be interpolated to {tuple(wanted)}")
    maps = table.T.reshape(1, table.shape[1], *grid).float()
    maps = functional.interpolate(maps, size=tuple(wanted), mode=INTERPOLATION[len(grid)], align_corners=False)
    return maps.flatten(2)[0].T.to(table.dtype)


class Positions(nn.Module):
    """A table of positions, looked up by coordinates: `(coords [B, N, K], grid) → [B, N, width]`.

    Another grid than the native one interpolates the table; so does loading a state saved for another grid. A `flat` or
    `transposed` table is computed anew instead: its neighbours in space are far apart in phase, so between two rows lies nothing.

    Args:
        grid: the native grid, all K axes of it.
        width: of the tokens.
        kind: "sincos" and "flat" are fixed; "learned" is a parameter. "transposed" are the sines and cosines of the grid with
            its axes exchanged, laid over the places of this one in their order, as Audio-MAE's release has them.
        axes: the axes of the grid it looks at; all by default. (MAE-ST: one table for space, one for time, summed.)
        first_axis_first: see `sincos`.
    """

    def __init__(
        self,
        grid: Sequence[int],
        width: int,
        kind: Literal["sincos", "flat", "learned", "transposed"] = "sincos",
        axes: Sequence[int] | None = None,
        first_axis_first: bool = False,
    ):
        super().__init__()
        self.axes = tuple(range(len(grid))) if axes is None else tuple(axes)
        self.grid = tuple(grid[axis] for axis in self.axes)
        self.kind = kind
        self.table: Tensor
        places = coordinates(self.grid)
        if kind == "sincos":
            self.register_buffer("table", sincos(places, width, first_axis_first))
        elif kind == "flat":
            self.register_buffer("table", flat_sincos(len(places), width))
        elif kind == "transposed":
            self.register_buffer("table", sincos(coordinates(self.grid[::-1]), width))
        else:
            self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(places), width), std=0.02))
        self.register_buffer("native", torch.tensor(self.grid))

    def extra_repr(self) -> str:
        return f"{self.kind}, grid={self.grid}, width={self.table.shape[1]}, axes={self.axes}"

    def forward(self, coords: Tensor, grid: Sequence[int]) -> Tensor:
        asked = tuple(grid[axis] for axis in self.axes)
        places = ravel(coords[..., self.axes], asked)
        return functional.embedding(places, self._table(self.table, self.grid, asked))

    def _table(self, table: Tensor, grid: tuple[int, ...], asked: tuple[int, ...]) -> Tensor:
        if grid == asked:
            return table
        if self.kind == "flat":
            num = math.prod(asked)  # a row depends on its number alone
            return table[:num] if num <= len(table) else flat_sincos(num, table.shape[1]).to(table)
        if self.kind == "transposed":
            return sincos(coordinates(asked[::-1], table.device), table.shape[1]).to(table)
        return resize(table, grid, asked)

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Interpolate a saved table of another grid, in place; returns the names of what was changed.

        A grid with fewer axes (an image's, for a clip) is repeated along the axes it lacks, which come first.
        """
        native, table = state.get(prefix + "native"), state.get(prefix + "table")
        if native is None or table is None:
            return []
        grid = tuple(cast(Tensor, native).tolist())
        if grid == self.grid or len(grid) > len(self.grid):
            return []
        lacking = len(self.grid) - len(grid)
        if lacking and self.kind != "flat":
            table = self._table(table, grid, self.grid[lacking:]).repeat(math.prod(self.grid[:lacking]), 1)
        else:
            table = self._table(table, grid, self.grid)
        state[prefix + "table"] = table
        state[prefix + "native"] = torch.tensor(self.grid)
        return [prefix + "table"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.adapt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class SumPositions(nn.Module):
    """The sum of several positions, each over axes of its own: separable positions (MAE-ST: space + time)."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, coords: Tensor, grid: Sequence[int]) -> Tensor:
        total = self.parts[0](coords, grid)
        for part in self.parts[1:]:
            total = total + part(coords, grid)
        return total


class PerceptronPositions(nn.Module):
    """Positions anywhere in space: a perceptron of the coordinates, learned (MAE3D).

    Args:
        axes: of the space.
        width: of what comes out, and of the layer between.
    """

    def __init__(self, axes: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(axes, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, coords: Tensor, grid: Sequence[int]) -> Tensor:
        """Coords [B, N, K] → [B, N, D], whatever the grid."""
        return self.fc2(self.fc1(coords.to(self.fc1.weight.dtype)).relu())
