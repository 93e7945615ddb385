"""SlowFast: SlowFast networks for video recognition.
Feichtenhofer, Fan, Malik, He. ICCV 2019. arXiv:1812.03982

A slow pathway sees few frames and says what there is; a fast one, eight times thinner, sees all of them and says how it moves.

Published: Kinetics-400 75.6 / 77.0 / 77.9 / 78.9 % top-1 (R50 4x16, 8x8, R101 8x8, 16x8; 10 x 3 views).
    unveil train slowfast --data labelled/ --out runs/slowfast
The numbers are those of the released script: 196 epochs from scratch, the learning rate 0.1 for 64 clips, which is 0.4 for 256.
Its slow pathway sees frames evenly from the first to the last, not every α-th; and the kernels of the lateral connections
are 7 long in R50 8x8 and 5 in the others, where the paper says 5.
"""

from typing import NamedTuple

from unveil.encoders import DEPTHS, Lateral, SlowFast
from unveil.errors import UserError
from unveil.layers import ConvNorm, NormKind, Similarity, convolution, norm_of, rectify
from unveil.recipe import Recipe
from unveil.recipes.slow import PRESETS as SLOW
from unveil.recipes.slow import classifier, pathway

PRESETS = SLOW


class Size(NamedTuple):
    """Blocks of each stage, those of the third with time; frames of the slow pathway, their stride; lateral kernel."""

    depths: tuple[int, ...]
    timed: int
    frames: int
    stride: int
    lateral: int


SIZES = {
    "debug": Size((1, 1, 1, 1), 1, 1, 8, 5),
    "R50_4x16": Size(DEPTHS[50], 6, 4, 16, 5),
    "R50_8x8": Size(DEPTHS[50], 6, 8, 8, 7),
    "R101_8x8": Size(DEPTHS[101], 23, 8, 8, 5),
    "R101_16x8": Size(DEPTHS[101], 6, 16, 8, 5),
}
FAST_STRIDE = 2
RATIO = 2  # channels of a lateral connection to one of the fast pathway


def slowfast(
    size: str = "R50_8x8",
    num_classes: int = 400,
    multi_label: bool = False,
    alpha: int = 0,
    beta: int = 8,
    frames: int = 0,
    stride: int = FAST_STRIDE,
    crop: int = 224,
    test_crop: int = 0,
    width: int = 64,
    lateral: int = 0,
    similarity: Similarity | None = None,
    norm: NormKind = "batch",
    dropout: float = 0.5,
    flip: bool = True,
) -> Recipe:
    """SlowFast: classify clips.

    Args:
        size: layers, frames x stride of the slow pathway: R50_4x16, R50_8x8, R101_8x8, R101_16x8; or debug.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        alpha: frames of the fast pathway to one of the slow; 0 for the size's.
        beta: channels of the slow pathway to one of the fast.
        frames: of a clip, as the fast pathway sees it; 0 for the size's.
        stride: between those, in frames of the file.
        crop: side of the clip in training, in pixels.
        test_crop: side of the clip in evaluation; 0 for 8/7 of `crop`.
        width: channels of the slow pathway's stem; the stages have multiples of it.
        lateral: frames of the lateral connections' kernels; 0 for the size's.
        similarity: of non-local blocks in the slow pathway: gaussian, embedded, dot or concatenation; none by default.
        norm: batch, group (32 groups), sync (batch statistics of all processes) or frozen (a checkpoint's).
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    if size not in SIZES:
        raise UserError(f"There is no SlowFast of size {size!r}: use {', '.join(SIZES)}.")
    of, norms, thin = SIZES[size], norm_of(norm, axes=3), width // beta
    if size == "debug":
        width, thin = 16, 4
    alpha, lateral = alpha or of.stride // FAST_STRIDE, lateral or of.lateral
    frames = frames or of.frames * alpha
    given = [thin, *[4 * thin * 2**number for number in range(3)]]  # channels of the fast pathway at each connection
    timed = (3,) * of.timed + (1,) * (of.depths[2] - of.timed)
    encoder = SlowFast(
        slow=pathway(
            of.depths,
            width,
            norms,
            1,
            ((1,), (1,), timed, (3,)),
            laterals=tuple(RATIO * channels for channels in given),
            similarity=similarity,
        ),
        fast=pathway(of.depths, thin, norms, 5, ((3,), (3,), timed, (3,))),
        laterals=[
            Lateral(
                ConvNorm(
                    convolution(channels, RATIO * channels, (lateral, 1, 1), (alpha, 1, 1)),
                    norms(RATIO * channels),
                    rectify(),
                )
            )
            for channels in given
        ],
        alpha=alpha,
    )
    return classifier(
        encoder,
        frames // alpha,
        frames,
        stride,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        test_crop=test_crop,
        dropout=dropout,
        flip=flip,
    )
