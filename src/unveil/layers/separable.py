"""Convolutions with batch norm and ReLU, whole or taken apart into space and time; self-gating (S3D, arXiv:1712.04851)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from unveil.layers.convolution import ConvNorm, convolution, rectify
from unveil.layers.norms import Norm

Extent = tuple[int, int, int]


def rectified(
    channels: int,
    out: int,
    norm: Norm,
    kernel: Extent = (1, 1, 1),
    stride: Extent = (1, 1, 1),
    padding: Extent | None = None,
) -> ConvNorm:
    """Convolution, norm, ReLU; `padding` is half the kernel unless given."""
    return ConvNorm(convolution(channels, out, kernel, stride, padding=padding), norm(out), rectify())


def space_then_time(channels: int, out: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution in space, then one in time, each with norm and ReLU."""
    return nn.Sequential(
        rectified(channels, out, norm, (1, kernel, kernel), (1, stride, stride)),
        rectified(out, out, norm, (kernel, 1, 1), (stride, 1, 1)),
    )


class SelfGate(nn.Module):
    """Each channel times a sigmoid of a linear map of all channels' means (S3D-G, section 4.4)."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,T,H,W] → the same."""
        return x * self.linear(x.mean((2, 3, 4))).sigmoid()[:, :, None, None, None]


class MaxPool(nn.Module):
    """The largest value in each window; along an axis shorter than the window, of the whole axis.

    Args:
        kernel, stride: along time, height, width.
        same: pad as TensorFlow's SAME does for lengths that the stride divides: more zeros at the end than in front.
            Otherwise half the kernel on both sides of an odd kernel, none of an even one.
    """

    def __init__(self, kernel: Extent, stride: Extent, same: bool = False):
        super().__init__()
        self.kernel, self.stride, self.same = kernel, stride, same

    def extra_repr(self) -> str:
        return f"{self.kernel}, stride={self.stride}{', same' if self.same else ''}"

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,T,H,W]; where padded with zeros, what is not negative."""
        if self.same:
            spare = [max(0, kernel - stride) for kernel, stride in zip(self.kernel, self.stride, strict=True)]
            x = functional.pad(x, [side for s in reversed(spare) for side in (s // 2, s - s // 2)])
            padding: Sequence[int] = (0, 0, 0)
        else:
            padding = [kernel // 2 if kernel % 2 else 0 for kernel in self.kernel]
        lengths = [length + 2 * side for length, side in zip(x.shape[2:], padding, strict=True)]
        kernel = [min(pair) for pair in zip(self.kernel, lengths, strict=True)]
        return functional.max_pool3d(x, kernel, self.stride, padding, ceil_mode=self.same)


class SpaceToDepth(nn.Module):
    """Blocks of `size`³ values → channels, [B,C,T,H,W] → [B,size³·C,T/size,…]; the place in the block before the channel."""

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = size

    def extra_repr(self) -> str:
        return str(self.size)

    def forward(self, x: Tensor) -> Tensor:
        n = self.size
        x = x.unflatten(4, (-1, n)).unflatten(3, (-1, n)).unflatten(2, (-1, n))
        return x.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)


class DropFirst(nn.Module):
    """A map without its first frame, row and column: what an even kernel, padded on both sides, computes too much."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, 1:, 1:]


def scaled(width: int, factor: float) -> int:
    """A share of a number of channels, at least 4."""
    return max(4, math.ceil(width * factor))
