"""CLIP: learning transferable visual models from natural language supervision.
Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever. ICML 2021. arXiv:2103.00020

Encode images and their captions by a tower each; of all pairs in a batch, find those that belong together. Afterwards a text
names what is looked for: classes without training, or a search.

Published: ImageNet-1K zero-shot 59.6 / 63.2 / 68.6 / 75.3 % top-1 (RN50, ViT-B/32, B/16, L/14, 224²).
    unveil pretrain clip --data pairs/ --out runs/clip
    unveil evaluate runs/clip --by zero-shot --data images/
The numbers are the paper's (400 million pairs, 32 epochs, batches of 32,768); the training code was not released. A micro-batch is
contrasted within itself and with those of the other processes at the same moment: `--loader.batch` is part of what is learned here.
H/14 is OpenCLIP's, with plain GELU (`--act gelu`). Released weights have a width of 64 for each head, but H/14 has 16 heads of 80.
"""

import re
from functools import partial
from typing import Literal, NamedTuple

from torch import nn

from unveil.data import Image, RandomResizedCrop, centred, fine_tuning
from unveil.data.captions import Captions
from unveil.encoders import DEPTHS, Dimensions, Encoder, ResNet, TextTransformer, ViT, dimensions, stage
from unveil.errors import UserError
from unveil.heads import LinearHead
from unveil.layers import AttentionPool, Block, ConvNorm, QuickGELU, antialiased, convolution, norm_of
from unveil.losses import classification
from unveil.objectives import Supervised, TwoTower
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.tokens import Patchify, Positions

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

PRESETS = {
    "small": {
        "clip": {
            "size": "S/16",
            "text_size": "256x4x4",
            "width": 256,
            "crop": 112,
            "context": 32,
            "vocabulary": 8192,
            "schedule.epochs": 40,
            "schedule.warmup": 2,
            "schedule.batch": 128,
            "optimizer.lr": 1e-3,
            "loader.batch": 128,
        },
        "finetune": {"size": "S/16", "crop": 112, "schedule.epochs": 40, "schedule.batch": 32, "optimizer.lr": 4e-3},
    },
}


class Towers(NamedTuple):
    """Sizes that were published together: of the image's and the text's tower, sides of patches (None: a ResNet), width of the
    shared space."""

    image: str
    text: str
    patch: int | None
    width: int


SIZES = {
    "debug": Towers("debug", "debug", 16, 32),
    "nano": Towers("nano", "nano", 16, 128),
    "S/32": Towers("S", "384x12x6", 32, 384),
    "S/16": Towers("S", "384x12x6", 16, 384),
    "B/32": Towers("B", "512x12x8", 32, 512),
    "B/16": Towers("B", "512x12x8", 16, 512),
    "L/16": Towers("L", "768x12x12", 16, 768),
    "L/14": Towers("L", "768x12x12", 14, 768),
    "H/14": Towers("H", "1024x24x16", 14, 1024),
    "RN50": Towers("RN50", "512x12x8", None, 1024),
    "RN101": Towers("RN101", "512x12x8", None, 512),
}
Act = Literal["quick_gelu", "gelu"]
ACTS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
LayerNorm = partial(nn.LayerNorm, eps=1e-5)


def towers_of(size: str, text_size: str | None, patch: int | None, width: int | None) -> Towers:
    """The sizes of both towers: a name in `SIZES`, or WIDTHxDEPTHxHEADS (RN3,4,6,3 for a ResNet) and the text's own.

    Raises:
        UserError: there is no such size, or one by its numbers says nothing of the text's.
    """
    found = SIZES.get(size)
    if found is None:
        if not re.fullmatch(r"RN\d+(,\d+){3}|\d+x\d+x\d+", size):
            raise UserError(
                f"There is no CLIP of size {size!r}: use {', '.join(SIZES)}, or WIDTHxDEPTHxHEADS, such as 512x8x8, with --text-size."
            )
        if text_size is None:
            raise UserError(f"--size {size}: a size by its numbers needs --text-size, such as 256x4x4, as well.")
        found = Towers(size, text_size, None if size.startswith("RN") else 16, dimensions(text_size).width)
    return Towers(found.image, text_size or found.text, patch or found.patch, width or found.width)


def resnet(size: str, crop: int, stem: int) -> ResNet:
    """CLIP's ResNet: three convolutions in the stem, means instead of strides, attention for a pooling.

    Args:
        size: "RN50", "RN101", or the blocks of its stages: "RN3,4,6,3".
        crop: side of the image, in pixels; a multiple of 32.
        stem: width of the stem.
    """
    depths = tuple(map(int, size[2:].split(","))) if "," in size else DEPTHS[int(size[2:])]
    norm = norm_of("batch", axes=2)
    half, width = stem // 2, 32 * stem
    stages, before = [], stem
    for number, depth in enumerate(depths):
        out, step = 4 * stem * 2**number, 2 if number else 1
        blocks = [partial(antialiased, inner=out // 4, norm=norm)] * depth
        stages.append(stage(blocks, before, out, (step, step)))
        before = out
    return ResNet(
        nn.Sequential(
            ConvNorm(convolution(3, half, (3, 3), 2), norm(half), nn.ReLU()),
            ConvNorm(convolution(half, half, (3, 3)), norm(half), nn.ReLU()),
            ConvNorm(convolution(half, stem, (3, 3)), norm(stem), nn.ReLU()),
            nn.AvgPool2d(2),
        ),
        stages,
        width,
        pooling=AttentionPool(width, max(1, width // 64), (crop // 32, crop // 32)),
    )


def image_tower(towers: Towers, crop: int, stem: int, act: Act, drop_path: float = 0.0) -> Encoder:
    """A ResNet, or a ViT with a norm before its blocks; see the flags of `clip`."""
    if towers.patch is None:
        return resnet(towers.image, crop, stem)
    patchify = Patchify(towers.patch, towers.patch, channels=3)
    dims: Dimensions = dimensions(towers.image)
    return ViT(
        dims,
        patchify,
        Positions(patchify.grid((crop, crop)), dims.width, "learned"),
        embed=nn.Linear(patchify.width, dims.width, bias=False),
        pool="class",
        drop_path=drop_path,
        norm_first=True,
        layer_norm=LayerNorm,
        block=partial(Block, norm=LayerNorm, act=ACTS[act]),
    )


def clip(
    size: str = "B/32",
    text_size: str | None = None,
    width: int | None = None,
    crop: int = 224,
    patch: int | None = None,
    stem: int = 64,
    context: int = 77,
    vocabulary: int = 49408,
    tokenizer: str = "",
    act: Act = "quick_gelu",
) -> Recipe:
    """CLIP: images and their captions find each other.

    Args:
        size: of both towers: S/32, S/16, B/32, B/16, L/16, L/14, H/14, RN50, RN101, nano, debug; or of the image's in numbers,
            768x12x12 (RN3,4,6,3 for a ResNet).
        text_size: of the text's tower, as WIDTHxDEPTHxHEADS; the published one unless given.
        width: of the space that both are projected into; the published one unless given.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; the size's own unless given.
        stem: width of a ResNet's stem.
        context: the most tokens of a caption; what is longer is cut.
        vocabulary: the most entries of a tokenizer that is trained on the captions; of another one its own number.
        tokenizer: file of a tokenizer: Hugging Face's tokenizer.json or CLIP's merges; empty to train one on the captions.
        act: activation of the transformers.
    """
    towers = towers_of(size, text_size, patch, width)
    image = image_tower(towers, crop, stem, act)
    text = TextTransformer(towers.text, vocabulary, context, layer_norm=LayerNorm, act=ACTS[act])
    return Recipe(
        objective=TwoTower(image, text, towers.width, bias=(towers.patch is None, False)),
        data=Data(
            Image(),
            transform=[RandomResizedCrop(crop, scale=(0.9, 1.0), bicubic=True)],
            evaluation=centred(crop, crop, bicubic=True),
            mean=MEAN,
            std=STD,
            text=Captions(context, vocabulary, tokenizer),
        ),
        optimizer=Optimizer(lr=5e-4 / 128, betas=(0.9, 0.98), weight_decay=0.2),
        schedule=Schedule(epochs=32, warmup=0.16, batch=32768),
        loader=Loader(batch=256),
    )


def finetune(
    size: str = "B/32",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    patch: int | None = None,
    stem: int = 64,
    act: Act = "quick_gelu",
    drop_path: float = 0.1,
    flip: bool = True,
) -> Recipe:
    """CLIP's image tower with a classifier, fine-tuned as MAE's encoders are; the paper itself trains a linear one alone.

    Args:
        size: see `clip`; WIDTHxDEPTHxHEADS, or RN3,4,6,3, for others.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; the size's own unless given.
        stem: width of a ResNet's stem.
        act: activation of the transformer.
        drop_path: stochastic depth of the transformer.
        flip: mirror images at random; turn it off where left and right mean something.
    """
    encoder = image_tower(towers_of(size, "debug", patch, None), crop, stem, act, drop_path)
    return classifier(encoder, num_classes, multi_label, crop, flip, MEAN, STD)


def classifier(
    encoder: Encoder,
    num_classes: int,
    multi_label: bool,
    crop: int,
    flip: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Recipe:
    """An image tower with a linear head, trained with the settings of MAE's fine-tuning (FLIP's are the same but for AutoAugment)."""
    return Recipe(
        objective=Supervised(
            key="image",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            Image(),
            transform=fine_tuning(crop, flip),
            evaluation=centred(crop),
            mean=mean,
            std=std,
            mixup=0.8,
            cutmix=1.0,
        ),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=100, warmup=5, batch=1024, min_lr=6e-8),
        loader=Loader(batch=32),
    )
