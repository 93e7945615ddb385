"""S3D-G: rethinking spatiotemporal feature learning: speed-accuracy trade-offs in video classification.
Xie, Sun, Huang, Tu, Murphy.
ECCV 2018. arXiv:1712.04851

S3D whose channels open and close: each is multiplied by what a linear map of all channels' means says of the clip.

Published: Kinetics-400 74.7 % top-1 (64 frames, 224², all frames of the test video).
    unveil train s3dg --data labelled/ --out runs/s3dg
The settings are those of s3d. The network is the one of which weights are published, the video tower of MIL-NCE (Miech et al.,
CVPR 2020, arXiv:1912.06430): its first convolution is 3×7×7, or, with `--stem blocks` as those weights have it, 2×4×4 on
blocks of 2×2×2 pixels; its batch norms are PyTorch's; colours lie between 0 and 1.
"""

from dataclasses import replace

from unveil.encoders import S3D, Inception, Stem
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import Recipe
from unveil.recipes import s3d

PRESETS = s3d.PRESETS


def s3dg(
    size: Inception = "B",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 64,
    stride: int = 1,
    crop: int = 224,
    stem: Stem = "flat",
    dropout: float = 0.2,
    flip: bool = True,
) -> Recipe:
    """S3D-G: S3D with self-gating.

    Args:
        size: share of the published channels: B all, S half, nano a quarter.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        stem: the first convolution: flat (3×7×7), cube (7×7 and then 7 in time) or blocks (2×4×4 on blocks of pixels).
        dropout: rate before the linear layer.
        flip: mirror at random; turn it off where left and right mean something.
    """
    recipe = s3d.s3d("debug", num_classes, multi_label, frames, stride, crop, flip=flip)
    encoder = S3D(size, stem, gates=True, same=True, pairs=False, eps=1e-5, momentum=0.1)
    objective = Supervised(
        key="video",
        encoder=encoder,
        head=LinearHead(encoder.width, num_classes, dropout),
        loss=classification(multi_label),
    )
    data = replace(recipe.data, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return replace(recipe, objective=objective, data=data)
