"""Slow: the slow pathway of SlowFast by itself, a residual network with time in its last two stages.
Feichtenhofer, Fan, Malik, He. ICCV 2019. arXiv:1812.03982

Few frames, far apart; convolutions over time only where the receptive field is large.

Published: Kinetics-400 72.7 / 74.8 % top-1 (R50 4x16 / 8x8, 10 x 3 views).
    unveil train slow --data labelled/ --out runs/slow
The numbers are those of the released script: 196 epochs from scratch, the learning rate 0.1 for 64 clips, which is 0.4 for 256.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from torch import nn

from unveil.data import Dense, HorizontalFlip, RandomShortSideCrop, Video, centred
from unveil.encoders import DEPTHS, Encoder, Inflation, ResNet, pyramid
from unveil.errors import UserError
from unveil.heads import ConvolutionalHead
from unveil.layers import ConvNorm, NonLocal, Norm, NormKind, Similarity, convolution, max_pool, norm_of, rectify
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule

PRESETS = {
    "small": {
        "crop": 112,
        "width": 32,
        "schedule.epochs": 60,
        "schedule.warmup": 5,
        "schedule.batch": 32,
        "loader.batch": 8,
    },
}

#: Where non-local blocks stand: (stage, block before), both from 0 (Wang et al. 2018, section 4.1).
PLACES = ((1, 1), (1, 3), (2, 1), (2, 3), (2, 5))
#: Frames of the first kernel, of those of each stage, and whether time is halved after the first.
BACKBONES: dict[str, tuple[int, tuple[tuple[int, ...], ...], bool]] = {
    "c2d": (1, ((1,), (1,), (1,), (1,)), True),
    "i3d": (5, ((3,), (3, 1), (3, 1), (1, 3)), True),
    "slow": (1, ((1,), (1,), (3,), (3,)), False),
}
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


class Size(NamedTuple):
    """Blocks of each stage; frames of a clip, and from one to the next."""

    depths: tuple[int, ...]
    frames: int
    stride: int


def size_of(size: str) -> Size:
    """What "R50_8x8" says; "debug" is a tiny one.

    Raises:
        UserError: there is no such size.
    """
    if size == "debug":
        return Size((1, 1, 1, 1), 4, 8)
    match = re.fullmatch(r"R(\d+)_(\d+)x(\d+)", size)
    if match is None or int(match[1]) not in (50, 101, 152):
        raise UserError(
            f"There is no size {size!r}: use R50_8x8, R50_4x16, R101_8x8 (layers, frames x stride) or debug."
        )
    return Size(DEPTHS[int(match[1])], int(match[2]), int(match[3]))


def pathway(
    depths: tuple[int, ...],
    width: int,
    norm: Norm,
    stem_length: int,
    lengths: tuple[tuple[int, ...], ...],
    *,
    laterals: tuple[int, ...] = (0, 0, 0, 0),
    halve: bool = False,
    similarity: Similarity | None = None,
    places: Collection[tuple[int, int]] = PLACES,
    inflation: Inflation = "mean",
) -> ResNet:
    """A residual network over clips.

    Args:
        depths, width, norm, lengths, laterals: see `pyramid`.
        stem_length: frames of the first kernel.
        halve: the larger of each two frames after the first stage (C2D, I3D).
        similarity: of non-local blocks; None for none.
        places: where they stand, see `PLACES`.
        inflation: see `ResNet`.
    """

    def inserted(stage: int, block: int, out: int) -> nn.Module | None:
        if halve and stage == 0 and block == depths[0] - 1:
            return max_pool((2, 1, 1), (2, 1, 1), padded=False)
        if similarity is not None and (stage, block) in places:
            return NonLocal(out, similarity, norm)
        return None

    stem = convolution(3, width, (stem_length, 7, 7), (1, 2, 2))
    return ResNet(
        stem=nn.Sequential(ConvNorm(stem, norm(width), rectify()), max_pool((1, 3, 3), (1, 2, 2))),
        stages=pyramid(depths, width, norm=norm, lengths=lengths, laterals=laterals, inserted=inserted),
        width=4 * width * 2 ** (len(depths) - 1),
        inflation=inflation,
    )


def classifier(
    encoder: Encoder,
    time: int | None,
    frames: int,
    stride: int,
    *,
    num_classes: int,
    multi_label: bool,
    crop: int,
    test_crop: int,
    dropout: float,
    flip: bool,
    hidden: int | None = None,
) -> Recipe:
    """An encoder of clips, trained and tested as the released Kinetics scripts do.

    Args:
        encoder: of clips.
        time: frames of its maps, which are 32 times smaller than the clip: larger ones are answered window by window, see
            `ConvolutionalHead`. None for the mean of any map.
        frames, stride: of a clip.
        num_classes, multi_label, crop, test_crop, dropout, flip: flags of `slow`.
        hidden: see `ConvolutionalHead`.
    """
    test = test_crop or crop * 8 // 7
    window = None if time is None else (time, -(-crop // 32), -(-crop // 32))
    return Recipe(
        objective=Supervised(
            key="video",
            encoder=encoder,
            head=ConvolutionalHead(encoder.width, num_classes, window, dropout, hidden, multi_label),
            loss=classification(multi_label),
        ),
        data=Data(
            Video(Dense(frames, stride)),
            transform=[RandomShortSideCrop(crop, crop * 8 // 7, crop * 10 // 7), *[HorizontalFlip()] * flip],
            evaluation=centred(test, test),
            mean=MEAN,
            std=STD,
            clips=10,
            crops=3,
        ),
        optimizer=Optimizer(kind="sgd", lr=0.4, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Schedule(epochs=196, warmup=34, batch=64),
        loader=Loader(batch=8),
        precise_bn=200,
    )


def slow(
    size: str = "R50_8x8",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 0,
    stride: int = 0,
    crop: int = 224,
    test_crop: int = 0,
    width: int = 64,
    norm: NormKind = "batch",
    inflation: Inflation = "mean",
    dropout: float = 0.5,
    flip: bool = True,
) -> Recipe:
    """Slow: classify clips.

    Args:
        size: layers, frames x stride: R50_8x8, R50_4x16, R101_8x8; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; 0 for the size's.
        stride: between the frames of a clip, in frames of the file; 0 for the size's.
        crop: side of the clip in training, in pixels.
        test_crop: side of the clip in evaluation; 0 for 8/7 of `crop`.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        inflation: with --start from images: kernels are repeated and divided (mean), or stand in the centre.
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    of = size_of(size)
    frames, stride, width = frames or of.frames, stride or of.stride, 8 if size == "debug" else width
    stem_length, lengths, _ = BACKBONES["slow"]
    return classifier(
        pathway(of.depths, width, norm_of(norm, axes=3), stem_length, lengths, inflation=inflation),
        frames,
        frames,
        stride,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        test_crop=test_crop,
        dropout=dropout,
        flip=flip,
    )
