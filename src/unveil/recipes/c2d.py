"""C2D: a residual network for images on each frame, and the mean of its answers.
Wang, Girshick, Gupta, He. CVPR 2018. arXiv:1711.07971

No convolution over time; only a pooling of two frames after the first stage. What the others have to beat.

Published: Kinetics-400 71.5 % top-1 (R50 8x8, PyTorchVideo, 10 x 3 views, from scratch).
    unveil train c2d --data labelled/ --out runs/c2d
The numbers are those of the released script (facebookresearch/SlowFast). The paper begins from ImageNet: --start a resnet.
"""

from unveil.encoders import Inflation
from unveil.layers import NormKind, norm_of
from unveil.recipe import Recipe
from unveil.recipes.slow import BACKBONES, classifier, pathway, size_of
from unveil.recipes.slow import PRESETS as SLOW

PRESETS = SLOW


def c2d(
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
    """C2D: classify clips.

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
    stem_length, lengths, halve = BACKBONES["c2d"]
    return classifier(
        pathway(of.depths, width, norm_of(norm, axes=3), stem_length, lengths, halve=halve, inflation=inflation),
        frames // 2,
        frames,
        stride,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        test_crop=test_crop,
        dropout=dropout,
        flip=flip,
    )
