"""X3D: expanding architectures for efficient video recognition.
Feichtenhofer, C. CVPR 2020. arXiv:2004.04730

A tiny network for images is expanded along one axis at a time: frame rate, duration, resolution, depth, width, width of
the bottleneck. What comes out is thin, and sees many frames in high resolution.

Published: Kinetics-400 69.5 / 73.5 / 76.2 / 77.5 / 79.1 % top-1 (XS, S, M, L, XL, 10 x 3 views).
    unveil train x3d --data labelled/ --out runs/x3d
The numbers are those of the released script: 300 epochs (L and XL 256), 0.1 for 128 clips (L and XL 0.05 for 64), which is
0.2 for 256. It counts widths from 12 channels of the stem, so that the paper's 24 are γ_w = 2. The named models of `STEPS`
are the paper's; the release does not give the order of the steps that lead to XS, which changes none of them.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from torch import nn

from unveil import layers
from unveil.encoders import ResNet, stage
from unveil.errors import UserError
from unveil.layers import ConvNorm, Norm, NormKind, SqueezeExcite, Swish, convolution, norm_of, rectify
from unveil.recipe import Optimizer, Recipe, Schedule
from unveil.recipes.slow import classifier

PRESETS = {
    "small": {
        "size": "XS",
        "schedule.epochs": 60,
        "schedule.warmup": 5,
        "schedule.batch": 32,
        "loader.batch": 8,
    },
}


class Factors(NamedTuple):
    """The six axes: frames from one to the next (γ_τ, the smaller the faster), frames of a clip (γ_t), side in pixels (γ_s),
    and how many times the base network's width (γ_w), width of the bottleneck (γ_b) and depth (γ_d)."""

    stride: int = 0
    frames: int = 1
    crop: int = 112
    width: float = 2.0
    bottleneck: float = 1.0
    depth: float = 1.0


#: The network is expanded in these steps, each one axis of the network before it; a name is a model's.
STEPS: tuple[tuple[str, dict[str, float]], ...] = (
    ("X2D", {}),
    ("", {"bottleneck": 2.25}),
    ("", {"stride": 12, "frames": 4}),
    ("", {"crop": 160}),
    ("XS", {"depth": 2.2}),
    ("S", {"stride": 6, "frames": 13}),
    ("", {"stride": 5, "frames": 16}),
    ("M", {"crop": 224}),
    ("", {"crop": 312}),
    ("L", {"depth": 5.0}),
    ("XL", {"width": 2.9}),
)


def expanded(steps: Iterable[tuple[str, dict[str, float]]]) -> dict[str, Factors]:
    """The factors of each named model in a sequence of steps."""
    named, factors = {}, Factors()
    for name, step in steps:
        factors = factors._replace(**step)
        if name:
            named[name] = factors
    return named


SIZES = expanded(STEPS)

CHANNELS, BLOCKS = (12, 12, 24, 48, 96), (1, 2, 5, 3)  # of the base network: of the stem and each stage
SQUEEZE = 1 / 16


def rounded(width: float, divisor: int, least: int = 1) -> int:
    """The nearest multiple of a divisor that is not a tenth smaller than `width`."""
    found = max(least, int(width + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * width else found


def network(factors: Factors, norm: Norm, divisor: int, norm_first: bool) -> ResNet:
    """The network of an expansion.

    Args:
        factors: of the axes.
        norm: channels → norm.
        divisor, norm_first: see `x3d`.
    """
    stem, *widths = (rounded(factors.width * channels, divisor) for channels in CHANNELS)
    inners, stages = [int(factors.bottleneck * width) for width in widths], []
    for number, (width_in, width, inner) in enumerate(zip((stem, *widths), widths, inners, strict=False)):
        blocks = [
            partial(
                layers.bottleneck,
                inner=inner,
                kernels=((1, 1, 1), (3, 3, 3), (1, 1, 1)),
                norm=norm,
                groups=inner,
                squeeze=None if i % 2 else SqueezeExcite(inner, rounded(SQUEEZE * inner, 8, 8), axes=3),
                act=Swish,
                squeeze_first=True,
                norm_shortcut=norm_first or number > 0,
            )
            for i in range(math.ceil(factors.depth * BLOCKS[number]))
        ]
        stages.append(stage(blocks, width_in, width, (1, 2, 2)))
    return ResNet(
        stem=nn.Sequential(
            convolution(3, stem, (1, 3, 3), (1, 2, 2)),
            ConvNorm(convolution(stem, stem, (5, 1, 1), groups=stem), norm(stem), rectify()),
        ),
        stages=stages,
        width=inners[-1],
        last=ConvNorm(convolution(widths[-1], inners[-1], (1, 1, 1)), norm(inners[-1]), rectify()),
    )


def x3d(
    size: str = "M",
    num_classes: int = 400,
    multi_label: bool = False,
    stride: int = 0,
    frames: int = 0,
    crop: int = 0,
    width: float = 0.0,
    bottleneck: float = 0.0,
    depth: float = 0.0,
    test_crop: int = 0,
    head_width: int = 2048,
    divisor: int = 8,
    norm_first: bool = True,
    norm: NormKind = "batch",
    dropout: float = 0.5,
    flip: bool = True,
) -> Recipe:
    """X3D: classify clips.

    Args:
        size: an expansion by its name: X2D, XS, S, M, L, XL; or debug. Each of the six factors can be given by itself, too.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        stride: between the frames of a clip, in frames of the file; 0 for the size's.
        frames: of a clip; 0 for the size's.
        crop: side of the clip in training, in pixels; 0 for the size's.
        width: times the base network's channels; 0 for the size's.
        bottleneck: channels inside a block to one outside; 0 for the size's.
        depth: times the base network's blocks; 0 for the size's.
        test_crop: side of the clip in evaluation; 0 for 8/7 of `crop`.
        head_width: of the layer before the classifier.
        divisor: widths are multiples of it: 8 in the paper and PyTorchVideo, 1 in the release. The same in XS to L.
        norm_first: a norm follows the shortcut of the first stage, as released; in PyTorchVideo none does.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    if size not in (*SIZES, "debug"):
        raise UserError(f"There is no X3D of size {size!r}: use {', '.join(SIZES)} or debug.")
    of = Factors(12, 4, 160, 1.0, 1.0, 0.5) if size == "debug" else SIZES[size]
    given = {"stride": stride, "frames": frames, "crop": crop, "width": width, "bottleneck": bottleneck, "depth": depth}
    of = of._replace(**{axis: factor for axis, factor in given.items() if factor})
    encoder = network(of, norm_of(norm, axes=3), divisor, norm_first)
    recipe = classifier(
        encoder,
        of.frames,
        of.frames,
        max(1, of.stride),
        num_classes=num_classes,
        multi_label=multi_label,
        crop=of.crop,
        test_crop=test_crop,
        dropout=dropout,
        flip=flip,
        hidden=64 if size == "debug" else head_width,
    )
    large = of.depth > SIZES["M"].depth
    recipe.optimizer = Optimizer(kind="sgd", lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-5)
    recipe.schedule = Schedule(epochs=256 if large else 300, warmup=35, batch=64 if large else 128)
    return recipe
