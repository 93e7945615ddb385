"""Residual blocks of convolutions: the bottleneck and the plain one, over any number of axes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from unveil.layers.convolution import ConvNorm, Convolve, convolution, rectify
from unveil.layers.norms import Norm, silence


class Residual(nn.Module):
    """act(shortcut(x) + branch(x)) (He et al. 2016), then whatever is inserted.

    Args:
        branch: map → map.
        shortcut: the same, where the shape changes; None for x itself.
        act: after the sum.
        inserted: what stands after this block: a non-local block, a pooling.
    """

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module | None, act: nn.Module, inserted: nn.Module | None = None
    ):
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.act = act
        self.inserted = nn.Identity() if inserted is None else inserted

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, *S] → [B, C', *S']."""
        return self.inserted(self.act(self.branch(x).add_(self.shortcut(x))))  # the branch's own tensor


def shortcut(width_in: int, width: int, stride: Sequence[int], norm: Norm | None) -> nn.Module | None:
    """A projection where width or resolution changes; None where they do not."""
    if width_in == width and all(step == 1 for step in stride):
        return None
    conv = convolution(width_in, width, (1,) * len(stride), stride)
    return ConvNorm(conv, nn.Identity() if norm is None else norm(width))


def bottleneck(
    width_in: int,
    width: int,
    stride: Sequence[int],
    *,
    inner: int,
    kernels: Sequence[Sequence[int]],
    norm: Norm,
    groups: int = 1,
    convolve: Convolve = convolution,
    squeeze: nn.Module | None = None,
    act: Callable[[], nn.Module] = rectify,
    squeeze_first: bool = False,
    zero_last: bool = True,
    norm_shortcut: bool = True,
    inserted: nn.Module | None = None,
) -> Residual:
    """Narrow, convolve, widen.

    Args:
        width_in, width: of the map before and after.
        stride: of the second convolution, one number for each axis.
        inner: width of the second convolution.
        kernels: of the three convolutions.
        norm: channels → norm.
        groups: of the second convolution: its cardinality (ResNeXt), or `inner` for a channelwise one (X3D).
        convolve: makes the second convolution.
        squeeze: squeeze and excitation after the second convolution.
        act: after the second convolution; the others are rectified.
        squeeze_first: squeeze before that activation (X3D) and not after it (RegNet).
        zero_last: the last norm's factors begin at zero (Goyal et al. 2017), so the block begins as its shortcut.
        norm_shortcut: a norm follows a projected shortcut.
        inserted: see `Residual`.
    """
    first, second, third = kernels
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    steps["a"] = ConvNorm(convolution(width_in, inner, first), norm(inner), rectify())
    middle = convolve(inner, inner, second, stride, groups)
    if squeeze is not None and squeeze_first:
        steps["b"] = ConvNorm(middle, norm(inner))
        steps["squeeze"] = squeeze
        steps["act"] = act()
    else:
        steps["b"] = ConvNorm(middle, norm(inner), act())
        if squeeze is not None:
            steps["squeeze"] = squeeze
    last = silence(norm(width)) if zero_last else norm(width)
    steps["c"] = ConvNorm(convolution(inner, width, third), last)
    across = shortcut(width_in, width, stride, norm if norm_shortcut else None)
    return Residual(nn.Sequential(steps), across, rectify(), inserted)


def basic(
    width_in: int,
    width: int,
    stride: Sequence[int],
    *,
    kernel: Sequence[int],
    norm: Norm,
    convolve: Convolve = convolution,
    zero_last: bool = True,
) -> Residual:
    """Two convolutions of the same kernel (the ResNets of 18 and 34 layers).

    Args:
        width_in, width, stride, norm, zero_last: see `bottleneck`; the first convolution has the stride.
        kernel: of both.
        convolve: makes both.
    """
    last = silence(norm(width)) if zero_last else norm(width)
    steps: OrderedDict[str, nn.Module] = OrderedDict(
        a=ConvNorm(convolve(width_in, width, kernel, stride), norm(width), rectify()),
        b=ConvNorm(convolve(width, width, kernel, (1,) * len(kernel)), last),
    )
    return Residual(nn.Sequential(steps), shortcut(width_in, width, stride, norm), rectify())


def antialiased(
    width_in: int, width: int, stride: Sequence[int], *, inner: int, norm: Norm, zero_last: bool = True
) -> Residual:
    """A bottleneck for images whose convolutions never step: where resolution falls, means of neighbours are taken before the
    last convolution and before the shortcut's (the ResNet-D of He, T. et al. 2019, carried to the branch by CLIP).

    Args:
        width_in, width, stride, inner, norm, zero_last: see `bottleneck`.
    """
    steps = stride[0], stride[1]
    still = steps == (1, 1)
    last = silence(norm(width)) if zero_last else norm(width)
    branch = nn.Sequential(
        OrderedDict(
            a=ConvNorm(convolution(width_in, inner, (1, 1)), norm(inner), rectify()),
            b=ConvNorm(convolution(inner, inner, (3, 3)), norm(inner), rectify()),
            pool=nn.Identity() if still else nn.AvgPool2d(steps),
            c=ConvNorm(convolution(inner, width, (1, 1)), last),
        )
    )
    across = None
    if width_in != width or not still:
        projected = ConvNorm(convolution(width_in, width, (1, 1)), norm(width))
        across = nn.Sequential(OrderedDict(pool=nn.Identity() if still else nn.AvgPool2d(steps), projected=projected))
    return Residual(branch, across, rectify())


class Gain(nn.Module):
    """A fixed factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def extra_repr(self) -> str:
        return f"{self.factor:.4g}"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def preactivated(width_in: int, width: int, kernels: Sequence[int], gain: float) -> Residual:
    """Rectified convolutions at a quarter of the width, without norms; their sum is scaled and added (Ramesh et al. 2021).

    Args:
        width_in, width: of the map before and after; where they differ, the shortcut is projected.
        kernels: sides of the convolutions.
        gain: of the branch.
    """
    widths = [width_in, *[width // 4] * (len(kernels) - 1), width]
    steps: list[nn.Module] = []
    for before, after, kernel in zip(widths, widths[1:], kernels, strict=False):
        steps += [nn.ReLU(), nn.Conv2d(before, after, kernel, padding=kernel // 2)]
    across = nn.Conv2d(width_in, width, 1) if width_in != width else None
    return Residual(nn.Sequential(*steps, Gain(gain)), across, nn.Identity())
