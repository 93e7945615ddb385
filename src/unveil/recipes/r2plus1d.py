"""R2plus1D: R(2+1)D, a closer look at spatiotemporal convolutions for action recognition.
Tran, Wang, Torresani, Ray, LeCun, Paluri. CVPR 2018. arXiv:1711.11248

A convolution over a clip is one over space, then one over time: as many parameters, twice as many nonlinearities, easier
to train. Of the same paper: R3D, with whole 3-D kernels, and MC3, with time in the first layers alone.

Published: Kinetics-400 76.0 % top-1 (R50 16x4, PyTorchVideo, 10 x 3 views), 67.5 / 64.0 / 63.2 % (18, MC3-18, R3D-18;
torchvision).
    unveil train r2plus1d --data labelled/ --out runs/r2plus1d
The networks are PyTorchVideo's (R50; over time first, then over space) and torchvision's (18); the schedule of both is that
of `slow`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from unveil.encoders import DEPTHS, ResNet, stage
from unveil.layers import (
    ConvNorm,
    Norm,
    NormKind,
    Residual,
    basic,
    bottleneck,
    convolution,
    factorised,
    norm_of,
    rectify,
)
from unveil.recipe import Recipe
from unveil.recipes.slow import classifier

PRESETS = {
    "small": {
        "size": "18",
        "schedule.epochs": 60,
        "schedule.warmup": 5,
        "schedule.batch": 32,
        "loader.batch": 8,
    },
}

Size = Literal["debug", "R50", "18", "MC3-18", "R3D-18"]
KERNEL = (3, 3, 3)
#: Of the colours of Kinetics, for torchvision's networks.
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def middle(width_in: int, width: int) -> int:
    """Channels between space and time with which both together have the 3-D kernel's number of weights (section 3.5)."""
    return width_in * width * 27 // (width_in * 9 + 3 * width)


def plain(kind: str, width: int, norm: Norm) -> list[list[Residual]]:
    """Four stages of two plain blocks: "18" (2+1)-D, "MC3-18" with time in the first, "R3D-18" with time in all."""
    stages, width_in = [], width
    for number in range(4):
        out, step = width * 2**number, 2 if number else 1
        timeless = kind == "MC3-18" and number > 0
        blocks = []
        for given in (width_in, out):
            make = partial(factorised, norm=norm, middle=middle(given, out)) if kind == "18" else convolution
            blocks.append(
                partial(basic, kernel=(1, 3, 3) if timeless else KERNEL, norm=norm, convolve=make, zero_last=False)
            )
        stages.append(stage(blocks, width_in, out, (1 if timeless else step, step, step)))
        width_in = out
    return stages


def deep(depths: Sequence[int], width: int, norm: Norm) -> list[list[Residual]]:
    """Stages of bottlenecks whose second convolution is over time, then over space; time is halved in the last two."""
    stages, width_in = [], width
    for number, depth in enumerate(depths):
        make: Callable[..., Residual] = partial(
            bottleneck,
            inner=width * 2**number,
            kernels=((1, 1, 1), KERNEL, (1, 1, 1)),
            norm=norm,
            convolve=partial(factorised, norm=norm, time_first=True),
        )
        out = 4 * width * 2**number
        stages.append(stage([make] * depth, width_in, out, (2 if number > 1 else 1, 2, 2)))
        width_in = out
    return stages


def r2plus1d(
    size: Size = "R50",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 16,
    stride: int = 0,
    crop: int = 0,
    test_crop: int = 0,
    width: int = 64,
    norm: NormKind = "batch",
    dropout: float | None = None,
    flip: bool = True,
) -> Recipe:
    """R(2+1)D: classify clips.

    Args:
        size: R50 with bottlenecks; 18, MC3-18, R3D-18 with plain blocks; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file; 0 for 4, of R50, or 2.
        crop: side of the clip in training, in pixels; 0 for 224, of R50, or 112.
        test_crop: side of the clip in evaluation; 0 for 8/7 of `crop`, of R50, or `crop`.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        dropout: before the classifier; 0.5, of R50, or 0, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    norms, is_deep = norm_of(norm, axes=3), size in ("R50", "debug")
    width = 8 if size == "debug" else width
    crop = crop or (224 if is_deep else 112)
    if is_deep:
        stem = ConvNorm(convolution(3, width, (1, 7, 7), (1, 2, 2)), norms(width), rectify())
        stages, out = deep((1, 1, 1, 1) if size == "debug" else DEPTHS[50], width, norms), 32 * width
    else:
        over_time = size == "18"
        conv = (
            factorised(3, width, (3, 7, 7), (1, 2, 2), norm=norms, middle=45)
            if over_time
            else convolution(3, width, (3, 7, 7), (1, 2, 2))
        )
        stem = ConvNorm(conv, norms(width), rectify())
        stages, out = plain(size, width, norms), 8 * width
    recipe = classifier(
        ResNet(stem, stages, out),
        -(-frames // 4) if is_deep else None,
        frames,
        stride or (4 if is_deep else 2),
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        test_crop=test_crop or (0 if is_deep else crop),
        dropout=(0.5 if is_deep else 0.0) if dropout is None else dropout,
        flip=flip,
    )
    if not is_deep:
        recipe.data.mean, recipe.data.std = MEAN, STD
    return recipe
