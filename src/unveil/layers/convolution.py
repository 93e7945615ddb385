"""Convolutions over any number of axes: the kernel's length says how many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from unveil.layers.norms import Norm

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOLS: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def convolution(
    width_in: int,
    width: int,
    kernel: Sequence[int],
    stride: Sequence[int] | int = 1,
    groups: int = 1,
    padding: Sequence[int] | None = None,
) -> nn.Module:
    """A convolution without bias; with an odd kernel's own padding, half of it, it keeps the size but for its stride."""
    padding = tuple(k // 2 for k in kernel) if padding is None else tuple(padding)
    step = stride if isinstance(stride, int) else tuple(stride)
    make = CONVOLUTIONS[len(kernel)]
    return make(width_in, width, tuple(kernel), step, padding, groups=groups, bias=False)


def rectify() -> nn.Module:
    """ReLU that writes over its input: a norm's result or a sum, which nothing else reads, backward included.

    A twentieth of ResNeXt-50's time on a CPU is what a second tensor would cost.
    """
    return nn.ReLU(inplace=True)


def factorised(
    width_in: int,
    width: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1, 1),
    groups: int = 1,
    *,
    norm: Norm,
    middle: int | None = None,
    time_first: bool = False,
) -> nn.Sequential:
    """(2+1)-D: over space, normalised and rectified, then over time (Tran et al. 2018, section 3.5).

    Args:
        width_in, width, kernel, stride, groups: of the 3-D convolution whose place it takes.
        norm: between the two.
        middle: channels between the two; `width` unless given.
        time_first: over time, then over space (PyTorchVideo).
    """
    middle = middle or width
    space: tuple[tuple[int, ...], tuple[int, ...]] = ((1, *kernel[1:]), (1, *stride[1:]))
    time: tuple[tuple[int, ...], tuple[int, ...]] = ((kernel[0], 1, 1), (stride[0], 1, 1))
    (kernel1, stride1), (kernel2, stride2) = (time, space) if time_first else (space, time)
    return nn.Sequential(
        ConvNorm(convolution(width_in, middle, kernel1, stride1, groups), norm(middle), rectify()),
        convolution(middle, width, kernel2, stride2, groups),
    )


def max_pool(kernel: Sequence[int], stride: Sequence[int], padded: bool = True) -> nn.Module:
    """The largest of each window; `padded` keeps the size but for the stride."""
    padding = tuple(k // 2 if padded else 0 for k in kernel)
    return MAX_POOLS[len(kernel)](tuple(kernel), tuple(stride), padding)


class ConvNorm(nn.Module):
    """Convolution, norm, activation.

    Args:
        conv: of any kind.
        norm: for its channels.
        act: None for none.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, act: nn.Module | None = None):
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, *S] → [B, C', *S']."""
        return self.act(self.norm(self.conv(x)))


#: What makes a convolution: `(width_in, width, kernel, stride, groups) → module`.
Convolve = Callable[..., nn.Module]
