"""MViTv2: improved multiscale vision transformers for classification and detection.
Li, Wu, Fan, Mangalam, Xiong, Malik, Feichtenhofer.
CVPR 2022. arXiv:2112.01526

MViT with positions that are relative, one axis at a time, pooled queries that are added to what attention found, pooling in
every block, and a width that grows in the attention.

Published: Kinetics-400 81.0 / 82.9 / 86.1 % top-1 (S 16x4, B 32x3 with 5 × 1, L 40x3 with 5 × 3 views); ImageNet-1K
82.3 / 83.6 / 84.4 / 85.3 % (T / S / B / L, 224²).
    unveil train mvitv2 --data labelled/ --out runs/mvitv2
The numbers are those of the configurations in PySlowFast (clips) and facebookresearch/mvit (images). The image L widens in the
perceptron there, as MViT does, and so here. The training of the clips' L (from ImageNet-21K) and of H has not been released.
There weight decay also acts on the tables of positions and the class token, here not.
"""

from typing import Any, Literal

from unveil.data import (
    CenterCrop,
    Dense,
    HorizontalFlip,
    Image,
    RandAugment,
    RandomResizedCrop,
    ResizeShort,
    Uniform,
    Video,
    notation,
)
from unveil.encoders import MVITV2, MViT, scales
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule

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

STRIDE = {32: 3, 40: 3}
CROP = {"L_40x3": 312}
DROP_PATH = {"image": {"B": 0.3, "L": 0.5, "H": 0.5}, "video": {"S": 0.2, "B": 0.3, "L": 0.75}}


def mvitv2(
    size: str = "S",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int | None = None,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int | None = None,
    kv_stride: int | None = None,
    widen: Literal["attention", "mlp"] | None = None,
    drop_path: float | None = None,
    dropout: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MViTv2: classify images, or clips when `frames` is given, from scratch.

    Args:
        size: T, S, B, L or H, also with its clip: S_16x4, B_32x3, L_40x3; or WIDTHxHEADSxBLOCKS of the stages: 96x1x1-2-11-2.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the size or the data unless given.
        stride: between the frames of a clip, in frames of the file; 4, of 32 and 40 frames 3, unless given.
        sampling: neighbouring frames, or one from each equal part of the video.
        crop: side of the image or clip, in pixels; 224, of L_40x3 312, unless given.
        kv_stride: of keys and values in the first stage, over space; 8 for clips, 4 for images, unless given.
        widen: where the width grows; in the attention, for images of size L in the perceptron, unless given.
        drop_path: stochastic depth; the published rate of the size unless given, or 0.1.
        dropout: rate before the linear layer; 0.5 for clips, none for images, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    crop = crop or CROP.get(size, 224)
    size, own_frames, own_stride = notation(size)
    frames = frames or own_frames
    if frames is None:
        signal, shape = Image(), (crop, crop)
    else:
        stride = stride or own_stride or STRIDE.get(frames, 4)
        signal = Video({"dense": Dense(frames, stride), "uniform": Uniform(frames)}[sampling])
        shape = (frames, crop, crop)
    clips, large = frames is not None, size == "L"
    encoder = MViT(
        scales(size, MVITV2),
        shape,
        widen=widen or ("mlp" if large and not clips else "attention"),
        kv_stride=kv_stride or (8 if clips else 4),
        class_token=clips,
        pool="class" if clips else "mean",
        drop_path=DROP_PATH[signal.key].get(size, 0.1) if drop_path is None else drop_path,
    )
    tested: dict[str, Any] = {"clips": 5, "crops": 3 if large else 1, "repeats": 2} if clips else {}
    ordinary = clips and not large
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
            evaluation=[ResizeShort(crop if clips and large else crop * 256 // 224), CenterCrop(crop)],
            mean=(0.45,) * 3 if ordinary else IMAGENET_MEAN,
            std=(0.225,) * 3 if ordinary else IMAGENET_STD,
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
        checkpointing=clips and large,
    )
