"""S3D: rethinking spatiotemporal feature learning: speed-accuracy trade-offs in video classification.
Xie, Sun, Huang, Tu, Murphy.
ECCV 2018. arXiv:1712.04851

I3D, the Inception network inflated to clips, with every 3-D convolution taken apart into one of space and one of time:
cheaper, and better.

Published: Kinetics-400 72.2 % top-1 (I3D: 71.1 %; 64 frames, 224², all frames of the test video).
    unveil train s3d --data labelled/ --out runs/s3d
The authors have not released their training. The settings are the paper's (80,000 steps of 336 clips, learning rate 0.1,
momentum 0.9) with the weight decay and batch norm of their network's definition in TensorFlow; the rate falls along a cosine
instead of in steps; the clips of a test video are tested apart and averaged; and batch norms, whose moving averages are that
slow (0.999), are given precise statistics. `--separable false` is I3D.
"""

from unveil.data import Dense, HorizontalFlip, RandomShortSideCrop, Video, centred
from unveil.encoders import S3D, Inception
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule

PRESETS = {
    "small": {
        "size": "S",
        "frames": 16,
        "stride": 4,
        "crop": 112,
        "schedule.epochs": 60,
        "schedule.warmup": 3,
        "schedule.batch": 16,
        "optimizer.lr": 0.4,
        "optimizer.weight_decay": 1e-4,
        "loader.batch": 16,
        "sample.clips": 2,
    },
}


def s3d(
    size: Inception = "B",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 64,
    stride: int = 1,
    crop: int = 224,
    separable: bool = True,
    dropout: float = 0.2,
    flip: bool = True,
) -> Recipe:
    """S3D: classify clips with convolutions of space and of time in turn.

    Args:
        size: share of the published channels: B all, S half, nano a quarter.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        separable: take 3-D convolutions apart into space and time; whole ones make I3D.
        dropout: rate before the linear layer.
        flip: mirror at random; turn it off where left and right mean something.
    """
    encoder = S3D(size, separable=separable)
    return Recipe(
        objective=Supervised(
            key="video",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, dropout),
            loss=classification(multi_label),
        ),
        data=Data(
            Video(Dense(frames, stride)),
            transform=[RandomShortSideCrop(crop, crop * 256 // 224, crop * 320 // 224), *[HorizontalFlip()] * flip],
            evaluation=centred(crop),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            clips=4,
        ),
        optimizer=Optimizer(kind="sgd", lr=0.1 * 256 / 336, momentum=0.9, nesterov=False, weight_decay=1e-7),
        schedule=Schedule(epochs=112, warmup=0, batch=336),
        loader=Loader(batch=6),
        precise_bn=200,
    )
