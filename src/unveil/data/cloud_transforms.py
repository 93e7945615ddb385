"""Random changes of clouds of points, float [3,N]: rotation, scaling, jitter. Their reprs are written into the run folder."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


class RandomScale:
    """Stretch each axis by a factor of its own, then move the cloud (MAE3D; of PointNet++'s and DGCNN's data loaders).

    Args:
        scale: range of the factors.
        shift: largest distance along each axis.
    """

    def __init__(self, scale: tuple[float, float] = (2 / 3, 3 / 2), shift: float = 0.2):
        self.scale = scale
        self.shift = shift

    def __repr__(self) -> str:
        return f"RandomScale(scale=({self.scale[0]:.3g}, {self.scale[1]:.3g}), shift={self.shift:g})"

    def __call__(self, x: Tensor) -> Tensor:
        low, high = self.scale
        factor, shift = torch.rand(2, 3, 1)
        return x * (low + (high - low) * factor) + self.shift * (2 * shift - 1)


class RandomRotation:
    """Turn the cloud by any angle about an axis, or about every direction alike.

    Args:
        axis: that stands upright ("y" in ModelNet and ShapeNet); "any" for a rotation out of all there are.
    """

    def __init__(self, axis: Literal["x", "y", "z", "any"] = "y"):
        self.axis = axis

    def __repr__(self) -> str:
        return f"RandomRotation(axis={self.axis!r})"

    def __call__(self, x: Tensor) -> Tensor:
        return (self._matrix() @ x.double()).to(x.dtype)

    def _matrix(self) -> Tensor:
        if self.axis == "any":
            # A normal quaternion has no direction that it prefers.
            w, i, j, k = torch.nn.functional.normalize(torch.randn(4, dtype=torch.float64), dim=0).tolist()
            return torch.tensor(
                [
                    [1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w)],
                    [2 * (i * j + k * w), 1 - 2 * (i * i + k * k), 2 * (j * k - i * w)],
                    [2 * (i * k - j * w), 2 * (j * k + i * w), 1 - 2 * (i * i + j * j)],
                ],
                dtype=torch.float64,
            )
        angle = 2 * math.pi * torch.rand((), dtype=torch.float64).item()
        first, second = (n for n in range(3) if n != "xyz".index(self.axis))
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[first, first] = matrix[second, second] = math.cos(angle)
        matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
        return matrix


class Jitter:
    """Move each point by itself, normally distributed but not too far (PointNet).

    Args:
        std: of the distance along each axis; of a cloud in the unit sphere.
        most: the largest such distance.
    """

    def __init__(self, std: float = 0.01, most: float = 0.02):
        self.std = std
        self.most = most

    def __repr__(self) -> str:
        return f"Jitter(std={self.std:g}, most={self.most:g})"

    def __call__(self, x: Tensor) -> Tensor:
        return x + (self.std * torch.randn_like(x)).clamp(-self.most, self.most)
