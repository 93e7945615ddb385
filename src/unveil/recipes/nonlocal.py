"""Non-local: non-local neural networks.
Wang, Girshick, Gupta, He. CVPR 2018. arXiv:1711.07971

Five blocks in which every place of a clip sees every other: after the second and fourth block of the second stage, and the
second, fourth and sixth of the third.

Published: Kinetics-400 74.9 % top-1 (I3D R50 from ImageNet, 32 frames, 10 x 3 views).
    unveil train nonlocal --data labelled/ --out runs/nonlocal
The numbers are those of the released script (facebookresearch/SlowFast); its similarity is scaled, which the paper's is
not. Where the size is R101, blocks stand where they do in R50, as released.
"""

import re
from typing import Literal

from unveil.encoders import Inflation
from unveil.errors import UserError
from unveil.layers import NormKind, Similarity, norm_of
from unveil.recipe import Recipe
from unveil.recipes.slow import BACKBONES, classifier, pathway, size_of
from unveil.recipes.slow import PRESETS as SLOW

PRESETS = SLOW


def places_of(text: str) -> list[tuple[int, int]]:
    """ "1.1,2.3" → [(1, 1), (2, 3)].

    Raises:
        UserError: it is no such list.
    """
    if not re.fullmatch(r"\d+\.\d+(,\d+\.\d+)*", text):
        raise UserError(f"--places {text}: give stage.block of each, both counted from 0, as in 1.1,1.3,2.1.")
    return [(int(stage), int(block)) for stage, block in (place.split(".") for place in text.split(","))]


def nonlocal_(
    size: str = "R50_8x8",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 0,
    stride: int = 0,
    crop: int = 224,
    test_crop: int = 0,
    backbone: Literal["c2d", "i3d", "slow"] = "i3d",
    similarity: Similarity = "embedded",
    places: str = "1.1,1.3,2.1,2.3,2.5",
    width: int = 64,
    norm: NormKind = "batch",
    inflation: Inflation = "mean",
    dropout: float = 0.5,
    flip: bool = True,
) -> Recipe:
    """Non-local: classify clips.

    Args:
        size: layers, frames x stride: R50_8x8, R50_4x16, R101_8x8; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; 0 for the size's.
        stride: between the frames of a clip, in frames of the file; 0 for the size's.
        crop: side of the clip in training, in pixels.
        test_crop: side of the clip in evaluation; 0 for 8/7 of `crop`.
        backbone: that the blocks are put into.
        similarity: of two places: gaussian, embedded (Gaussian), dot (product) or concatenation.
        places: of the blocks: stage.block that each stands behind, both counted from 0.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        inflation: with --start from images: kernels are repeated and divided (mean), or stand in the centre.
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    of = size_of(size)
    frames, stride, width = frames or of.frames, stride or of.stride, 8 if size == "debug" else width
    stem_length, lengths, halve = BACKBONES[backbone]
    net = pathway(
        of.depths,
        width,
        norm_of(norm, axes=3),
        stem_length,
        lengths,
        halve=halve,
        similarity=similarity,
        places=places_of(places),
        inflation=inflation,
    )
    return classifier(
        net,
        frames // 2 if halve else frames,
        frames,
        stride,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        test_crop=test_crop,
        dropout=dropout,
        flip=flip,
    )
