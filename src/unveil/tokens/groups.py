"""Points in space: how far apart, which are nearest, which are spread farthest; and groups of them as tokens.

All of it is exact, works on batches, and never holds more than a stripe of the table of all distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unveil.errors import UserError
from unveil.precision import full_precision
from unveil.tokens.patchify import Plain
from unveil.tokens.tokens import Tokens

STRIPE = 1 << 20
"""Distances of a sample that are held at once."""
FEW = 8
"""Axes up to which differences are squared one by one, which loses no digits; beyond, products of matrices are faster."""


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """All squared distances between a [B, N, K] and b [B, M, K]: [B, N, M], float32 at least."""
    a, b = (x.float() if x.dtype.itemsize < 4 else x for x in (a, b))
    if a.shape[-1] <= FEW:
        total: Tensor | None = None
        for axis in range(a.shape[-1]):
            part = (a[:, :, None, axis] - b[:, None, :, axis]).square()
            total = part if total is None else total + part
        assert total is not None
        return total
    with full_precision(a.device):  # in half precision neighbours would be others
        products = a @ b.transpose(1, 2)
    return a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * products


def stripes(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """`squared_distances(a, b)` a few rows at a time."""
    for part in a.split(max(1, STRIPE // b.shape[1]), dim=1):
        yield squared_distances(part, b)


@torch.no_grad()
def nearest(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """The k points [B, M, K] nearest to each query [B, N, K], the nearest first: int64 [B, N, k].

    Where there are fewer points, all of them: [B, N, M].
    """
    k = min(k, points.shape[1])
    if k == 1:
        return torch.cat([rows.argmin(dim=-1, keepdim=True) for rows in stripes(queries, points)], dim=1)
    return torch.cat([rows.topk(k, dim=-1, largest=False).indices for rows in stripes(queries, points)], dim=1)


@torch.no_grad()
def farthest(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling: the first point, then again and again the one farthest from all those chosen (Eldar et al. 1997).

    Args:
        points: [B, N, K].
        count: how many of them, at most N.

    Returns:
        int64 [B, count], in the order in which they were chosen; of points equally far the first.
    """
    points = points.float() if points.dtype.itemsize < 4 else points
    chosen = [torch.zeros_like(points[:, 0, 0], dtype=torch.int64)]
    distance: Tensor | None = None
    for _ in range(count - 1):
        to_last = squared_distances(taken(points, chosen[-1][:, None]), points)[:, 0]
        distance = to_last if distance is None else torch.minimum(distance, to_last)
        chosen.append(distance.argmax(dim=1))
    return torch.stack(chosen, dim=1)


def taken(x: Tensor, indices: Tensor) -> Tensor:
    """Rows of each sample: x [B, N, D] at indices [B, …] → [B, …, D].

    What is taken several times gets its gradients summed in the same order every time, on a GPU too; `gather` does not.
    """
    start = torch.arange(x.shape[0], device=x.device) * x.shape[1]
    return functional.embedding(indices + start.view(-1, *[1] * (indices.ndim - 1)), x.flatten(0, 1))


class Groups(Plain):
    """`[B, 3, N] → Tokens`: groups of points that lie close to one another, each about a centre; groups may overlap.

    Centres are spread by farthest point sampling from the first point on, N // size of them; a group are the `size` points
    nearest to one. `coords` are the centres, float; raw tokens the points' coordinates as they are, point by point.

    Args:
        size: points of a group.
        channels: of a point; its place are the first three.
    """

    def __init__(self, size: int, channels: int = 3):
        self.size = size
        self.channels = channels

    def __repr__(self) -> str:
        return f"Groups({self.size}, channels={self.channels})"

    @property
    def width(self) -> int:
        """Values in a group."""
        return self.size * self.channels

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many groups a cloud of this shape (its last axis is looked at) has.

        Raises:
            UserError: it has fewer points than one group.
        """
        if shape[-1] < self.size:
            raise UserError(
                f"A cloud of {shape[-1]} points has fewer than one group ({self.size}): choose a larger --points, or a smaller --group."
            )
        return (shape[-1] // self.size,)

    def __call__(self, x: Tensor, indices: Tensor | None = None) -> Tokens:
        """Clouds [B, C, N] → tokens with x [B, M, size × C] and coords [B, M, 3]; those at `indices` [B, n] alone."""
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(f"{self} takes [B, {self.channels}, N], not {tuple(x.shape)}")
        grid = self.grid(x.shape)
        points = x.transpose(1, 2)
        places = points[..., :3]
        centres = taken(places, farthest(places, grid[0]))
        groups = taken(points, nearest(centres, places, self.size))
        tokens = Tokens(groups.flatten(2), centres, grid, places=centres)
        return tokens if indices is None else tokens.gather(indices)
