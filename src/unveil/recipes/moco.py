"""MoCo: momentum contrast for unsupervised visual representation learning.
He, Fan, Wu, Xie, Girshick. CVPR 2020. arXiv:1911.05722. Version 2: Chen, Fan, Girshick, He. 2020. arXiv:2003.04297

A view of a picture finds the other view of the same picture among 65,536 earlier ones, which an encoder that follows slowly has
put into a queue.

Published: ImageNet-1K linear probe 60.6 / 67.7 / 71.1 % top-1 (v1 / v2 / v2 with 800 epochs; ResNet-50, 200 epochs).
    unveil pretrain moco --data images/ --out runs/moco
    unveil pretrain moco --data images/ --mlp true --temperature 0.2 --augment v2 --out runs/moco-v2
    unveil evaluate runs/moco --by linear --data labelled/
The numbers are those of the released script, but for the schedule: half a cosine, as in v2, where v1 divides the rate by ten at
60 and 80 % of the epochs; and the last norm of each block begins at zero. Shuffled batch norm: on each device a micro-batch is
divided into `--groups` parts for the batch norms, differently for the keys; the script exchanges samples between devices.
Of clips two moments of a video agree (Feichtenhofer et al. 2021, arXiv:2104.14558); their network is Slow. The paper publishes no
fine-tuning on ImageNet: `unveil finetune` has the settings of ResNet and Slow.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from unveil.data import (
    ColorJitter,
    Dense,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Image,
    RandomResizedCrop,
    Signal,
    Video,
    centred,
)
from unveil.encoders import ResNet
from unveil.errors import UserError
from unveil.heads import Projector
from unveil.layers import Norm, Queue, norm_of
from unveil.losses import contrast_with
from unveil.objectives import Agreement
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.recipes import resnet, slow

PRESETS = {
    "small": {
        "moco": {
            "size": "2,2,2,2",
            "width": 32,
            "crop": 112,
            "queue": 4096,
            "mlp": True,
            "temperature": 0.2,
            "augment": "v2",
            "schedule.batch": 64,
            "optimizer.lr": 0.06,
        },
        "finetune": {
            "size": "2,2,2,2",
            "width": 32,
            "crop": 112,
            "schedule.epochs": 60,
            "schedule.batch": 32,
            "loader.batch": 32,
        },
    },
}


def signal_of(frames: int | None, stride: int) -> Signal:
    """Clips of so many frames, or images where there are none."""
    return Image() if frames is None else Video(Dense(frames, stride))


def backbone(size: str, width: int, norm: Norm, clips: bool) -> ResNet:
    """A residual network of images, or of clips: then Slow's.

    Args:
        size, width: see the flags of `resnet`.
        norm: channels → norm, for maps of two axes or, of clips, three.
        clips: of clips.

    Raises:
        UserError: no such network.
    """
    if not clips:
        return resnet.network(size, width, norm)
    depths, groups, _, plain = resnet.shape_of(size)
    if plain or groups > 1:
        raise UserError(f"--size {size}: for clips there are 50, 101 and 152, blocks as 2,2,2,2, and debug.")
    stem_length, lengths, _ = slow.BACKBONES["slow"]
    return slow.pathway(depths, 8 if size == "debug" else width, norm, stem_length, lengths)


def views(signal: Signal, crop: int, first: list[Callable[[Any], Any]], second: list[Callable[[Any], Any]]) -> Data:
    """Two views of a sample, and the usual one of evaluation."""
    return Data(signal, transform=first, views=[second], evaluation=centred(crop))


def augmentations(crop: int, version: Literal["v1", "v2"], flip: bool) -> list[Callable[[Any], Any]]:
    """What each of the two views goes through; version 2's is also SimSiam's."""
    colours = {
        "v1": [Grayscale(0.2), ColorJitter(0.4, 0.4, 0.4, 0.4)],
        "v2": [ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), Grayscale(0.2), GaussianBlur(0.5)],
    }
    return [RandomResizedCrop(crop, scale=(0.2, 1.0)), *colours[version], *[HorizontalFlip()] * flip]


def moco(
    size: str = "50",
    frames: int | None = None,
    stride: int = 4,
    crop: int = 224,
    width: int = 64,
    norm: Literal["batch", "group"] = "batch",
    mlp: bool = False,
    dim: int = 128,
    temperature: float = 0.07,
    momentum: float = 0.999,
    queue: int | None = None,
    groups: int = 2,
    augment: Literal["v1", "v2"] = "v1",
    flip: bool = True,
) -> Recipe:
    """MoCo: find a view's other view among earlier ones; images, or clips when `frames` is given.

    Args:
        size: layers: 18, 34, 50, 101, 152, with groups and their width 50_32x4d; or blocks of the four stages: 2,2,2,2; or debug.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the image or clip, in pixels.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, or group, which needs no other samples.
        mlp: two layers between encoder and loss (v2) and not one.
        dim: width of queries and keys.
        temperature: by which similarities are divided; 0.07, in v2 0.2.
        momentum: of the encoder that makes the keys.
        queue: keys that are kept; 65,536 (debug 64) unless given.
        groups: parts of a micro-batch that batch norms see by themselves, of keys in another order; 1: no shuffling.
        augment: as in v1, or v2 (with blur).
        flip: mirror at random; turn it off where left and right mean something.
    """
    signal = signal_of(frames, stride)
    clips = frames is not None
    encoder = backbone(size, width, norm_of(norm, axes=2 + clips), clips)
    transform = augmentations(crop, augment, flip)
    return Recipe(
        objective=Agreement(
            key=signal.key,
            encoder=encoder,
            projector=Projector(encoder.width, [encoder.width, dim] if mlp else [dim]),
            loss=partial(contrast_with, scale=1 / temperature),
            momentum=lambda progress: momentum,
            queue=Queue(queue or (64 if size == "debug" else 65536), dim),
            symmetric=False,
            groups=groups,
        ),
        data=views(signal, crop, transform, transform),
        optimizer=Optimizer(kind="sgd", lr=0.03, momentum=0.9, nesterov=False, weight_decay=1e-4),
        schedule=Schedule(epochs=200, warmup=0, batch=256),
        loader=Loader(batch=16 if clips else 64),
    )


def finetune(
    size: str = "50",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int = 4,
    crop: int = 224,
    width: int = 64,
    norm: Literal["batch", "group"] = "batch",
    dropout: float = 0.0,
    flip: bool = True,
) -> Recipe:
    """The encoder with a classifier, all of it trained, with the settings of ResNet, of clips those of Slow.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the image or clip in training, in pixels.
        width: channels of the stem.
        norm: batch or group.
        dropout: before the classifier.
        flip: mirror at random; turn it off where left and right mean something.
    """
    clips = frames is not None
    encoder = backbone(size, width, norm_of(norm, axes=2 + clips), clips)
    if frames is None:
        return resnet.classifier(encoder, num_classes, multi_label, crop, dropout, flip)
    return slow.classifier(
        encoder, frames, frames, stride, num_classes=num_classes, multi_label=multi_label, crop=crop, test_crop=0,
        dropout=dropout, flip=flip,
    )  # fmt: skip
