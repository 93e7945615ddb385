"""MViT: multiscale vision transformers.
Fan, Xiong, Mangalam, Li, Yan, Malik, Feichtenhofer.
ICCV 2021. arXiv:2104.11227

A transformer whose grid shrinks and whose width grows from stage to stage; attention pools its queries, and keys and values
still more, so that fine grids are affordable.

Published: Kinetics-400 78.4 / 80.2 % top-1 (B 16x4 / 32x3, 5 × 1 views); ImageNet-1K 82.9 % (B, 224²).
    unveil train mvit --data labelled/ --out runs/mvit
The numbers are those of PySlowFast's configurations. `MVIT_B_32x3_CONV` sets the depth twice and the poolings' kernel not at
all, and so builds the paper's MViT-B-24 with kernels of its strides, which is B24_32x3 here; B_32x3 is the paper's and
PyTorchVideo's, with 16 blocks. There weight decay also acts on
the tables of positions and the class token, here not, and biases begin at 0.02, here at zero.
"""

from typing import Any, Literal

from unveil.data import (
    Dense,
    HorizontalFlip,
    Image,
    RandAugment,
    RandomResizedCrop,
    Uniform,
    Video,
    centred,
    notation,
)
from unveil.encoders import MVIT, MViT, scales
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule
from unveil.tokens import Positions, SumPositions

PRESETS = {
    "small": {
        "size": "nano",
        "crop": 112,
        "drop_path": 0.05,
        "schedule.epochs": 100,
        "schedule.warmup": 5,
        "schedule.batch": 32,
        "optimizer.lr": 2e-3,
        "loader.batch": 16,
        "sample.repeats": 1,
        "sample.clips": 2,
    },
}

STRIDE = {32: 3}


def mvit(
    size: str = "B",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int | None = None,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int = 224,
    kv_stride: int | None = None,
    kernel: int | None = None,
    drop_path: float | None = None,
    dropout: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MViT: classify images, or clips when `frames` is given, from scratch.

    Args:
        size: B or B24, also with its clip: B_16x4, B_32x3, B24_32x3; or WIDTHxHEADSxBLOCKS of the stages: 96x1x1-2-11-2.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the size or the data unless given.
        stride: between the frames of a clip, in frames of the file; 4, of 32 frames 3, unless given.
        sampling: neighbouring frames, or one from each equal part of the video.
        crop: side of the image or clip, in pixels.
        kv_stride: of keys and values in the first stage, over space; 8 for clips, 4 for images, unless given.
        kernel: of poolings; 0 for one more than their stride; 3, of B24 0, unless given.
        drop_path: stochastic depth; 0.2 for clips, of B24 0.3, 0.1 for images, unless given.
        dropout: rate before the linear layer; 0.5 for clips, none for images, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    size, own_frames, own_stride = notation(size)
    frames = frames or own_frames
    named = scales(size, MVIT)
    if frames is None:
        signal, shape = Image(), (crop, crop)
        positions = Positions(MViT.grid(shape), named.width, "learned")
    else:
        stride = stride or own_stride or STRIDE.get(frames, 4)
        signal = Video({"dense": Dense(frames, stride), "uniform": Uniform(frames)}[sampling])
        shape = (frames, crop, crop)
        space, time = (Positions(MViT.grid(shape), named.width, "learned", axes) for axes in ((1, 2), (0,)))
        positions = SumPositions(space, time)
    clips = frames is not None
    encoder = MViT(
        named,
        shape,
        positions,
        relative=False,
        residual=False,
        pool_queries=False,
        kernel=(0 if size == "B24" else 3) if kernel is None else kernel,
        widen="mlp",
        kv_stride=kv_stride or (8 if clips else 4),
        drop_path=({"B24": 0.3}.get(size, 0.2) if clips else 0.1) if drop_path is None else drop_path,
    )
    return classifier(
        signal,
        encoder,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        dropout=dropout,
        flip=flip,
    )


def classifier(
    signal: Image | Video,
    encoder: MViT,
    *,
    num_classes: int,
    multi_label: bool,
    crop: int,
    dropout: float | None,
    flip: bool,
    large: bool = False,
) -> Recipe:
    """A multiscale transformer, trained and tested from scratch as the released scripts of MViT and MViTv2 do.

    Args:
        signal: images or clips.
        encoder: of these.
        num_classes, multi_label, crop, dropout, flip: flags of `mvit`.
        large: of clips: three crops that cover the frame, ImageNet's colours, activations recomputed (MViTv2-L).
    """
    clips = isinstance(signal, Video)
    covered = clips and large
    tested: dict[str, Any] = {"clips": 5, "crops": 3 if large else 1, "repeats": 2} if clips else {}
    return Recipe(
        objective=Supervised(
            key=signal.key,
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, (0.5 if clips else 0.0) if dropout is None else dropout),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            signal,
            # timm's magnitudes 7 and 9 of 10 are 21 and 27 of 30 here; its four and six operations apply with probability one half.
            transform=[
                *([RandAugment(2, 21)] if clips else []),
                RandomResizedCrop(crop, bicubic=not clips),
                *[HorizontalFlip()] * flip,
                *([] if clips else [RandAugment(3, 27)]),
            ],
            # Three crops cover a frame whose short side is theirs; one is the centre of a larger.
            evaluation=centred(crop, crop if covered else None),
            mean=(0.45,) * 3 if clips and not large else IMAGENET_MEAN,
            std=(0.225,) * 3 if clips and not large else IMAGENET_STD,
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            **tested,
        ),
        # The scripts count videos, of which each gives two crops; here each crop is a sample.
        optimizer=Optimizer(lr=8e-4 if clips else 2.5e-4, weight_decay=0.05),
        schedule=(
            Schedule(epochs=200, warmup=30, batch=512, min_lr=8e-6)
            if clips
            else Schedule(epochs=300, warmup=70, batch=2048, min_lr=1e-6)
        ),
        loader=Loader(batch=8 if clips else 64),
        clip_gradient=1.0,
        checkpointing=covered,
    )
