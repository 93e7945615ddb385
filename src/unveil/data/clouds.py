"""Clouds of points: what of a file a sample is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unveil.data.boxes import Crop
from unveil.data.cloud_files import READERS, Cloud, read_cloud
from unveil.data.drawing import three_views
from unveil.data.measure import measure_cloud
from unveil.data.row import Row
from unveil.data.signal import Silent
from unveil.errors import DecodeError


@dataclass(frozen=True)
class Points(Silent):
    """So many points of a cloud, or of the surface of a mesh, float32 [3,N], in the unit sphere about their mean.

    A sample is drawn anew each time it is read: of a mesh on its surface, everywhere alike; of a cloud without putting back,
    and where it has too few points, all of them and some twice. In evaluation the draw is always the same.

    Args:
        points: N.
    """

    points: int = 2048
    key: ClassVar[str] = "points"
    suffixes: ClassVar[frozenset[str]] = frozenset(READERS)
    pictures: ClassVar[bool] = False
    values: ClassVar[str] = "coordinates minus their mean, divided by the largest distance from it"
    measure = staticmethod(measure_cloud)

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Tensor:
        return self._sampled(row.path, read_cloud(row.path), generator)

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        cloud = read_cloud(row.path)
        return [self._sampled(row.path, cloud, generator) for _ in range(count)]

    def views(self, row: Row, clips: int = 1) -> list[Tensor]:
        """Each of `clips` is another draw."""
        cloud = read_cloud(row.path)
        return [self._sampled(row.path, cloud, torch.Generator().manual_seed(number)) for number in range(clips)]

    def blank(self, height: int = 256, width: int = 256) -> Tensor:
        """All points in one place."""
        return torch.zeros(3, self.points)

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Tensor]]:
        yield None, None, self.views(Row(os.fspath(path)))[0]

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """From the right, from the front, from above."""
        return three_views(x)

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        """From the front."""
        return three_views(Points().views(Row(os.fspath(path)))[0])[1]

    def _sampled(self, path: str, cloud: Cloud, generator: torch.Generator | None) -> Tensor:
        return in_unit_sphere(sample(cloud, self.points, generator), path)


def sample(cloud: Cloud, count: int, generator: torch.Generator | None = None) -> Tensor:
    """So many random points of a cloud, in random order, float64 [count, 3]: of its surface where it has one."""
    points = torch.from_numpy(cloud.points)
    if len(cloud.faces):
        corners = points[torch.from_numpy(np.ascontiguousarray(cloud.faces))]  # [F, 3 corners, 3]
        sides = corners[:, 1:] - corners[:, :1]
        areas = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=1).cumsum(0)
        if areas[-1] > 0:
            where, u, v = torch.rand(3, count, dtype=torch.float64, generator=generator)
            face = torch.searchsorted(areas, where * areas[-1], right=True).clamp(max=len(areas) - 1)
            # Uniform on the parallelogram, its far half turned back onto the triangle.
            u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
            return corners[face, 0] + u[:, None] * sides[face, 0] + v[:, None] * sides[face, 1]
    order = torch.randperm(len(points), generator=generator)
    if len(points) >= count:
        return points[order[:count]]
    more = torch.randint(len(points), (count - len(points),), generator=generator)
    chosen = torch.cat([order, more])
    return points[chosen[torch.randperm(count, generator=generator)]]


def in_unit_sphere(points: Tensor, path: str) -> Tensor:
    """Points [N, 3] minus their mean, the farthest at a distance of 1, as float32 [3, N].

    Raises:
        DecodeError: all lie in one place, so that there is no shape; or so far away that no number holds their distance.
    """
    far = points.abs().max()
    points = points - points.mean(dim=0)
    size = points.norm(dim=1).max()
    if not size.isfinite():
        raise DecodeError(f"{path}: its coordinates are too large.")
    if size <= 1e-12 * far:  # rounding leaves a trace of what was taken away
        raise DecodeError(f"{path}: all of its points lie in one place: there is no shape to see.")
    return (points / size).float().T.contiguous()
