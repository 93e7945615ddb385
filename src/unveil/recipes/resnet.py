"""ResNet: deep residual learning for image recognition; with ResNeXt's cardinality and Group Normalization.
He, Zhang, Ren, Sun. CVPR 2016. arXiv:1512.03385. ResNeXt: Xie, Girshick, Dollár, Tu, He. CVPR 2017. arXiv:1611.05431.
Group Normalization: Wu, He. ECCV 2018. arXiv:1803.08494

Every block adds to what it is given; so the deepest network is as easy to train as a shallow one.

Published: ImageNet-1K 76.1 / 78.0 % top-1 (ResNet-50 / 101), 77.8 / 78.8 % (ResNeXt-50 / 101, 32x4d), 75.9 % (ResNet-50, group
norm).
    unveil train resnet --data labelled/ --out runs/resnet
The numbers are those of "one hour" (Goyal et al. 2017) with the schedule of half a cosine, 100 epochs; the last norm of each
block begins at zero. Group normalisation is `--norm group`, with 32 groups as published; it does not need large batches.
"""

import re
from functools import partial

from torch import nn

from unveil.data import HorizontalFlip, Image, RandomResizedCrop, centred
from unveil.encoders import DEPTHS, Encoder, ResNet, pyramid, stage
from unveil.errors import UserError
from unveil.heads import ConvolutionalHead
from unveil.layers import ConvNorm, Norm, NormKind, basic, convolution, max_pool, norm_of, rectify
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule

PRESETS = {
    "small": {
        "size": "18",
        "crop": 112,
        "schedule.epochs": 60,
        "schedule.batch": 32,
        "loader.batch": 32,
    },
}


def shape_of(size: str) -> tuple[tuple[int, ...], int, int | None, bool]:
    """Depths, groups, width of a group, and whether blocks are plain ones: of "50", "50_32x4d", "2,2,2,2_8x4d", "1,1,1,1_basic".

    Raises:
        UserError: there is no such size.
    """
    match = re.fullmatch(r"(\d+|debug|\d+(?:,\d+){3})(?:_(\d+)x(\d+)d|_(basic))?", size)
    layers, groups, group_width, basic_blocks = match.groups() if match else ("", None, None, None)
    if layers == "debug":
        depths = (1, 1, 1, 1)
    elif "," in layers:
        depths = tuple(map(int, layers.split(",")))
    elif layers.isdigit() and int(layers) in DEPTHS:
        depths = DEPTHS[int(layers)]
    else:
        raise UserError(
            f"There is no ResNet of size {size!r}: use {', '.join(map(str, DEPTHS))}, with a cardinality as 50_32x4d; "
            "or the blocks of its stages, 3,4,6,3, or plain ones, 2,2,2,2_basic."
        )
    return (
        depths,
        int(groups or 1),
        int(group_width) if group_width else None,
        layers in ("18", "34") or bool(basic_blocks),
    )


def network(size: str, width: int, norm: Norm) -> ResNet:
    """The residual network of images.

    Args:
        size, width: see the flags of `resnet`.
        norm: channels → norm.
    """
    depths, groups, group_width, plain = shape_of(size)
    width = 8 if size == "debug" else width
    if plain:
        blocks = [[partial(basic, kernel=(3, 3), norm=norm)] * depth for depth in depths]
        widths = [width * 2**number for number in range(4)]
        stages = [
            stage(blocks[i], widths[max(0, i - 1)], widths[i], (2, 2) if i else (1, 1)) for i in range(len(blocks))
        ]
    else:
        widths = [4 * width * 2**number for number in range(4)]
        stages = pyramid(depths, width, norm=norm, groups=groups, group_width=group_width)
    stem = ConvNorm(convolution(3, width, (7, 7), 2), norm(width), rectify())
    return ResNet(stem=nn.Sequential(stem, max_pool((3, 3), (2, 2))), stages=stages, width=widths[-1])


def classifier(encoder: Encoder, num_classes: int, multi_label: bool, crop: int, dropout: float, flip: bool) -> Recipe:
    """An encoder of images, trained and tested as published for residual networks; see the flags of `resnet`."""
    return Recipe(
        objective=Supervised(
            key="image",
            encoder=encoder,
            head=ConvolutionalHead(encoder.width, num_classes, dropout=dropout),
            loss=classification(multi_label),
        ),
        data=Data(
            Image(),
            transform=[RandomResizedCrop(crop), *[HorizontalFlip()] * flip],
            evaluation=centred(crop),
        ),
        optimizer=Optimizer(kind="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Schedule(epochs=100, warmup=5, batch=256),
        loader=Loader(batch=64),
    )


def resnet(
    size: str = "50",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    width: int = 64,
    norm: NormKind = "batch",
    dropout: float = 0.0,
    flip: bool = True,
) -> Recipe:
    """ResNet and ResNeXt: classify images.

    Args:
        size: layers: 18, 34, 50, 101, 152; with groups and their width for ResNeXt: 50_32x4d, 101_32x8d; or blocks of the four
            stages: 2,2,2,2; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    encoder = network(size, width, norm_of(norm, axes=2))
    return classifier(encoder, num_classes, multi_label, crop, dropout, flip)
