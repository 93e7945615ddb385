"""RegNet: designing network design spaces.
Radosavovic, Kosaraju, Girshick, He, Dollár. CVPR 2020. arXiv:2003.13678

Good networks have widths that grow linearly with depth, quantised to a few stages: four numbers say a network.

Published: ImageNet-1K 68.9 to 80.5 % top-1 (X200MF to X32GF), 70.3 to 80.9 % (Y200MF to Y32GF).
    unveil train regnet --data labelled/ --out runs/regnet
The numbers are those of the released configurations (pycls): 100 epochs, the learning rate 0.2 for 256 images.
"""

import math
import re
from collections import Counter
from functools import partial
from typing import NamedTuple

from unveil.encoders import ResNet, stage
from unveil.errors import UserError
from unveil.layers import ConvNorm, NormKind, SqueezeExcite, bottleneck, convolution, norm_of, rectify
from unveil.recipe import Optimizer, Recipe, Schedule
from unveil.recipes.resnet import classifier

PRESETS = {
    "small": {
        "size": "Y400MF",
        "crop": 128,
        "schedule.epochs": 60,
        "schedule.batch": 64,
        "loader.batch": 32,
    },
}


class Line(NamedTuple):
    """Blocks, width of the first (w₀), slope (w_a), factor of a stage (w_m), channels of a group; squeeze or not."""

    depth: int
    start: int
    slope: float
    step: float
    group: int
    squeeze: bool = False


SIZES = {
    "X200MF": Line(13, 24, 36.44, 2.49, 8),
    "X400MF": Line(22, 24, 24.48, 2.54, 16),
    "X600MF": Line(16, 48, 36.97, 2.24, 24),
    "X800MF": Line(16, 56, 35.73, 2.28, 16),
    "X1.6GF": Line(18, 80, 34.01, 2.25, 24),
    "X3.2GF": Line(25, 88, 26.31, 2.25, 48),
    "X4GF": Line(23, 96, 38.65, 2.43, 40),
    "X6.4GF": Line(17, 184, 60.83, 2.07, 56),
    "X8GF": Line(23, 80, 49.56, 2.88, 120),
    "X12GF": Line(19, 168, 73.36, 2.37, 112),
    "X16GF": Line(22, 216, 55.59, 2.1, 128),
    "X32GF": Line(23, 320, 69.86, 2.0, 168),
    "Y200MF": Line(13, 24, 36.44, 2.49, 8, True),
    "Y400MF": Line(16, 48, 27.89, 2.09, 8, True),
    "Y600MF": Line(15, 48, 32.54, 2.32, 16, True),
    "Y800MF": Line(14, 56, 38.84, 2.4, 16, True),
    "Y1.6GF": Line(27, 48, 20.71, 2.65, 24, True),
    "Y3.2GF": Line(21, 80, 42.63, 2.66, 24, True),
    "Y4GF": Line(22, 96, 31.41, 2.24, 64, True),
    "Y6.4GF": Line(25, 112, 33.22, 2.27, 72, True),
    "Y8GF": Line(17, 192, 76.82, 2.19, 56, True),
    "Y12GF": Line(19, 168, 73.36, 2.37, 112, True),
    "Y16GF": Line(18, 200, 106.23, 2.48, 112, True),
    "Y32GF": Line(20, 232, 115.89, 2.53, 232, True),
    "debug": Line(3, 8, 8.0, 2.0, 8, True),
}


class Shape(NamedTuple):
    """Width and depth of each stage; channels of a group there; squeeze or not."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    groups: tuple[int, ...]
    squeeze: bool


def quantised(line: Line, multiple: int = 8) -> Shape:
    """The stages of a line: widths w₀ + w_a·i, each to the nearest power of w_m times w₀, then to multiples of 8 (section 3.3).

    Groups that are wider than a stage are as wide as it; widths are then made multiples of the groups.
    """
    widths = []
    for i in range(line.depth):
        power = round(math.log((line.start + line.slope * i) / line.start, line.step))
        widths.append(round(line.start * line.step**power / multiple) * multiple)
    stages = sorted(Counter(widths).items())
    groups = tuple(min(line.group, width) for width, _ in stages)
    whole = tuple(round(width / group) * group for (width, _), group in zip(stages, groups, strict=True))
    return Shape(whole, tuple(depth for _, depth in stages), groups, line.squeeze)


def shape_of(size: str) -> Shape:
    """The stages of a size: a name in `SIZES`, or X or Y, blocks x width of each, and the group: "Y:2x24,5x56,6x120:8".

    Raises:
        UserError: there is no such size.
    """
    if size in SIZES:
        return quantised(SIZES[size])
    match = re.fullmatch(r"([XY]):(\d+x\d+(?:,\d+x\d+)*):(\d+)", size)
    if match is None:
        raise UserError(
            f"There is no RegNet of size {size!r}: use {', '.join(SIZES)}; or blocks x width of the stages and the width of a "
            "group, as Y:2x24,5x56,6x120:8 (X without squeeze and excitation)."
        )
    stages = [tuple(map(int, part.split("x"))) for part in match[2].split(",")]
    depths, widths = zip(*stages, strict=True)
    groups = tuple(min(int(match[3]), width) for width in widths)
    return Shape(widths, depths, groups, match[1] == "Y")


def regnet(
    size: str = "Y4GF",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    stem_width: int = 32,
    squeeze_ratio: float = 0.25,
    norm: NormKind = "batch",
    dropout: float = 0.0,
    flip: bool = True,
) -> Recipe:
    """RegNet: classify images.

    Args:
        size: X or Y (with squeeze and excitation) and multiply-adds: X200MF, X400MF, X600MF, X800MF, X1.6GF, X3.2GF, X4GF, X6.4GF,
            X8GF, X12GF, X16GF, X32GF, the same with Y; blocks x width of the stages and the group: Y:2x24,5x56,6x120:8; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        stem_width: channels of the stem.
        squeeze_ratio: hidden channels of the squeeze, to those a block is given.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    shape, norms = shape_of(size), norm_of(norm, axes=2)
    stages = []
    for width_in, width, depth, group in zip(
        (stem_width, *shape.widths), shape.widths, shape.depths, shape.groups, strict=False
    ):
        blocks = [
            partial(
                bottleneck,
                inner=width,
                kernels=((1, 1), (3, 3), (1, 1)),
                norm=norms,
                groups=width // group,
                squeeze=SqueezeExcite(width, round(squeeze_ratio * (width if i else width_in)), axes=2)
                if shape.squeeze
                else None,
                zero_last=False,
            )
            for i in range(depth)
        ]
        stages.append(stage(blocks, width_in, width, (2, 2)))
    encoder = ResNet(
        stem=ConvNorm(convolution(3, stem_width, (3, 3), 2), norms(stem_width), rectify()),
        stages=stages,
        width=shape.widths[-1],
    )
    recipe = classifier(encoder, num_classes, multi_label, crop, dropout, flip)
    recipe.optimizer = Optimizer(kind="sgd", lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-5)
    recipe.schedule = Schedule(epochs=100, warmup=5, batch=1024)
    recipe.precise_bn = 32  # pycls: 32,768 images
    return recipe
