"""MaskFeat: masked feature prediction for self-supervised visual pre-training.
Wei, Fan, Xie, Wu, Yuille, Feichtenhofer. CVPR 2022. arXiv:2112.09133

Hide blocks of an image, or cubes of a clip, behind a token and predict which way edges run there: histograms of oriented
gradients. They need no teacher, and keep shapes where pixels also ask for colours and light.

Published: ImageNet-1K fine-tuned 84.0 / 85.7 % top-1 (ViT-B / L, 224², 1600 epochs); Kinetics-400 82.2 / 84.3 % (MViTv2-S / L
16x4, 300 / 800 epochs, 10 × 1 views).
    unveil pretrain maskfeat --data clips/ --out runs/maskfeat
    unveil finetune runs/maskfeat --data labelled/ --out runs/maskfeat-ft
The settings are those of the configurations in PySlowFast, which pre-train for 300 epochs; how many of their shards make a
batch is the paper's. There weight decay also acts on the class and mask tokens and the tables of positions, here not, and masks
stop short of 40 % where no block fits, here the last block is cut. ViT's weights begin as MAE's do, not truncated normal. MViTv2
widens in the perceptron there, and so here.
"""

import math
from typing import Any, Literal, NamedTuple

import torch

from unveil.data import Dense, HorizontalFlip, Image, RandAugment, RandomResizedCrop, Uniform, Video, centred, notation
from unveil.decoders import LinearDecoder
from unveil.encoders import MVITV2, MViT, ViT, dimensions, scales
from unveil.errors import UserError
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Block, Cube
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import HOG
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "maskfeat": {
            "size": "nano",
            "crop": 128,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 32,
            "optimizer.lr": 4e-3,
            "loader.batch": 16,
        },
        "finetune": {
            "size": "nano",
            "crop": 128,
            "schedule.epochs": 40,
            "schedule.warmup": 5,
            "schedule.batch": 16,
            "optimizer.lr": 8e-3,
            "loader.batch": 8,
            "sample.repeats": 1,
            "sample.clips": 2,
        },
    },
}

#: The network that was published for images, and that for clips; and the size of each that has the least parameters.
ENCODER = {"image": "vit", "video": "mvitv2"}
SIZE = {"vit": "B", "mvitv2": "S"}
#: Pixels of a place on the stem's grid of a multiscale transformer.
STEM = 4


class Finetuning(NamedTuple):
    """Published settings. A batch counts crops: of clips of size S the scripts take two of each."""

    epochs: int
    warmup: int
    batch: int
    lr: float
    min_lr: float
    layer_decay: float
    drop_path: float
    repeats: int


FINETUNING = {
    "image": {
        "B": Finetuning(100, 20, 2048, 1e-3, 5e-7, 0.65, 0.1, 1),
        "L": Finetuning(50, 5, 1024, 1e-3, 1e-6, 0.75, 0.1, 1),
    },
    "video": {
        "S": Finetuning(100, 20, 1024, 4.8e-3, 8e-6, 0.75, 0.1, 2),
        "L": Finetuning(75, 5, 512, 9.6e-3, 1.6e-4, 0.875, 0.2, 1),
    },
}
COLOURS = {
    "image": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "video": {"mean": (0.45,) * 3, "std": (0.225,) * 3},
}


class Seen(NamedTuple):
    """What a network sees: its name and size, the signal, and its sizes."""

    kind: str
    size: str
    signal: Image | Video
    shape: tuple[int, ...]


def _seen(
    kind: str | None, size: str | None, frames: int | None, stride: int | None, crop: int, sampling: str = "dense"
) -> Seen:
    """Settle what flags leave open: images unless there are frames, and the network that was published for the signal."""
    size, own_frames, own_stride = notation(size or "")
    frames, stride = frames or own_frames, stride or own_stride or 4
    signal, shape = Image(), (crop, crop)
    if frames is not None:
        signal, shape = Video(Dense(frames, stride) if sampling == "dense" else Uniform(frames)), (frames, crop, crop)
    kind = kind or ENCODER[signal.key]
    return Seen(kind, size or SIZE[kind], signal, shape)


def _vit(seen: Seen, patch: int, tubelet: int, **options: Any) -> ViT:
    patchify = Patchify(*[tubelet] * (len(seen.shape) - 2), patch, patch, channels=3)
    positions = Positions(patchify.grid(seen.shape), dimensions(seen.size).width, "learned")
    return ViT(seen.size, patchify, positions, pool="mean", **options)


def _mvitv2(seen: Seen, **options: Any) -> MViT:
    kv_stride = {2: 4, 3: 8}[len(seen.shape)]
    return MViT(scales(seen.size, MVITV2), seen.shape, widen="mlp", kv_stride=kv_stride, pool="mean", **options)


def _masked_mvitv2(seen: Seen, patch: int) -> MViT:
    """It stops shrinking at patches of so many pixels: published 16, where a classifier goes on to 32. Masks are twice as large."""
    possible = [STEM * 2**step for step in range(len(scales(seen.size, MVITV2).depths))]
    if patch not in possible:
        raise UserError(
            f"--patch {patch}: MViTv2 of size {seen.size} can predict {', '.join(map(str, possible))} pixels."
        )
    steps = [2 if STEM * 2**stage < patch else 1 for stage in range(len(possible) - 1)]
    return _mvitv2(seen, strides=steps, mask_stride=2 * math.prod(steps), masked="replace")


def maskfeat(
    size: str | None = None,
    encoder: Literal["vit", "mvitv2"] | None = None,
    ratio: float = 0.4,
    frames: int | None = None,
    stride: int | None = None,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    cell: int = 8,
) -> Recipe:
    """MaskFeat: predict the gradients of 40 % of an image, or of a clip when `frames` is given.

    Args:
        size: of the network: B, L … of ViT, S, L … of MViTv2, also with its clip: S_16x4; B and S unless given.
        encoder: a plain or a multiscale transformer; ViT for images and MViTv2 for clips unless given.
        ratio: share that is hidden.
        frames: of a clip; images when there are none. Taken from the size or the data unless given.
        stride: between the frames of a clip, in frames of the file; 4 unless given.
        crop: side of the image or clip, in pixels.
        patch: side of what is predicted at a place, in pixels; also of ViT's patches.
        tubelet: length of ViT's patches of a clip, in frames, the first of which is predicted.
        cell: side of a histogram's cell, in pixels.
    """
    seen = _seen(encoder, size, frames, stride, crop)
    if patch % cell:
        raise UserError(f"--cell {cell} does not divide a --patch of {patch} pixels.")
    if seen.kind == "vit":
        network = _vit(seen, patch, tubelet, masked="replace")
    else:
        network = _masked_mvitv2(seen, patch)
    grid = network.mask_grid(torch.empty(0, 3, *seen.shape))
    if round(ratio * math.prod(grid)) < 1:
        raise UserError(
            f"--ratio {ratio} hides nothing of a grid of {' × '.join(map(str, grid))}: enlarge it, or --crop."
        )
    *time, _, _ = seen.shape
    signal, clips = seen.signal, bool(time)
    target = HOG(Patchify(*[1] * len(time), patch, patch, channels=3), signal.key, cell)
    return Recipe(
        objective=MaskedAutoencoder(
            key=signal.key,
            encoder=network,
            decoder=LinearDecoder(network.width, target.width),
            masker=Cube(ratio) if clips else Block(ratio),
            target=target,
            loss=mse,
        ),
        data=Data(
            signal,
            transform=[RandomResizedCrop(crop, scale=(0.5, 1.0), bicubic=not clips), HorizontalFlip()],
            evaluation=centred(crop),
            **COLOURS[signal.key],
        ),
        optimizer=Optimizer(lr=8e-4 if clips else 2e-4, weight_decay=0.05),
        schedule=(
            Schedule(epochs=300, warmup=10, batch=512, min_lr=8e-6)
            if clips
            else Schedule(epochs=300, warmup=30, batch=2048, min_lr=1e-6)
        ),
        loader=Loader(batch=8 if clips else 64),
        clip_gradient=0.02,
    )


def finetune(
    size: str | None = None,
    encoder: Literal["vit", "mvitv2"] | None = None,
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int | None = None,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    drop_path: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MaskFeat's encoder, fine-tuned as published: mean-pooled, with layer-wise learning rates; MViTv2 goes down to 7 × 7.

    Args:
        size: of the network: B, L … of ViT, S, L … of MViTv2, also with its clip: S_16x4; B and S unless given.
        encoder: a plain or a multiscale transformer; ViT for images and MViTv2 for clips unless given.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the size or the data unless given.
        stride: between the frames of a clip, in frames of the file; 4 unless given.
        sampling: neighbouring frames, or one from each equal part of the video.
        crop: side of the image or clip, in pixels.
        patch: side of ViT's patches, in pixels.
        tubelet: length of ViT's patches of a clip, in frames.
        drop_path: stochastic depth; 0.1, of clips and size L 0.2, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    seen = _seen(encoder, size, frames, stride, crop, sampling)
    signal, clips = seen.signal, len(seen.shape) > 2
    published = FINETUNING[signal.key]
    how = published.get(seen.size) or next(iter(published.values()))
    options: dict[str, Any] = {"norm": "pooled", "drop_path": how.drop_path if drop_path is None else drop_path}
    network = _vit(seen, patch, tubelet, **options) if seen.kind == "vit" else _mvitv2(seen, **options)
    return Recipe(
        objective=Supervised(
            key=signal.key,
            encoder=network,
            head=LinearHead(network.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            signal,
            # timm's magnitudes 7 and 9 of 10 are 21 and 27 of 30 here; its four and two operations apply with probability one half.
            transform=[
                *([RandAugment(2, 21)] if clips else []),
                RandomResizedCrop(crop, bicubic=not clips),
                *[HorizontalFlip()] * flip,
                *([] if clips else [RandAugment(1, 27)]),
            ],
            evaluation=centred(crop),
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=how.repeats,
            clips=10 if clips else 1,
            **COLOURS[signal.key],
        ),
        optimizer=Optimizer(lr=how.lr, weight_decay=0.05, layer_decay=how.layer_decay),
        schedule=Schedule(epochs=how.epochs, warmup=how.warmup, batch=how.batch, min_lr=how.min_lr),
        loader=Loader(batch=8 if clips else 64),
        clip_gradient=5.0 if clips else 0.0,
    )
