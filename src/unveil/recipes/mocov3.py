"""MoCo-v3: an empirical study of training self-supervised vision transformers.
Chen, Xie, He. ICCV 2021. arXiv:2104.02057

Each view of a picture finds the other among those of the batch; one side goes through an encoder that follows slowly, the other
through a predictor. A transformer's patch embedding stays as it was drawn: learning it made the training unstable.

Published: ImageNet-1K linear probe 73.2 / 76.7 % top-1 (ViT-S with 12 heads / ViT-B, 300 epochs), fine-tuned 81.4 / 83.2 %;
68.9 / 72.8 / 74.6 % (ResNet-50, 100 / 300 / 1000 epochs).
    unveil pretrain mocov3 --data images/ --out runs/mocov3
    unveil pretrain mocov3 --size R50 --data images/ --out runs/mocov3-r50
    unveil finetune runs/mocov3 --data labelled/ --out runs/mocov3-ft
The numbers are those of the released script. Its ResNets are trained with LARS at a rate of 0.6, which is for batches of thousands and
not here: `--size R50` has SGD at 0.05 and weight decay 1e-4, SimSiam's. Its batch norms see all devices' samples
(`--sync-batch-norm true`), and negatives are those of a micro-batch in all processes: 4095 need as many in `--loader.batch` and devices
together. Weight decay spares biases, norms and tokens, there it does not. Fine-tuning is DeiT's (2012.12877), 150 epochs. Of clips
two moments of a video agree.
"""

from functools import partial
from typing import Literal

from torch import nn

from unveil.data import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomResizedCrop,
    Solarize,
    centred,
    fine_tuning,
)
from unveil.encoders import ConvStem, Dimensions, ViT, dimensions
from unveil.errors import UserError
from unveil.heads import LinearHead, Projector
from unveil.layers import cosine_to_one, norm_of, xavier_qkv
from unveil.losses import classification, contrast
from unveil.objectives import Agreement, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.recipes import moco
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "mocov3": {
            "size": "192x6x6",
            "crop": 112,
            "hidden": 1024,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 64,
            "optimizer.lr": 6e-4,
            "loader.batch": 64,
        },
        "finetune": {
            "size": "192x6x6",
            "crop": 112,
            "schedule.epochs": 60,
            "schedule.batch": 32,
            "loader.batch": 32,
            "optimizer.lr": 2e-3,
        },
    },
}

#: Twelve heads where ViT-S has six.
SIZES = {"S": Dimensions(384, 12, 12)}
BLUR_SECOND, SUN_SECOND = 0.1, 0.2


def transformer(
    size: str,
    frames: int | None,
    crop: int,
    patch: int | None,
    tubelet: int,
    conv_stem: bool,
    positions: Literal["sincos", "learned"],
    drop_path: float = 0.0,
) -> ViT:
    """The transformer of images or clips: see the flags of `mocov3`.

    Raises:
        UserError: no such size, or patches of another size with the convolutional stem, which has its own.
    """
    if conv_stem and patch not in (None, ConvStem.STRIDE):
        raise UserError(
            f"--patch {patch}: the convolutional stem's tokens are {ConvStem.STRIDE} pixels apart; leave the flag out."
        )
    dims = SIZES.get(size) or dimensions(size)
    axes = 2 if frames is None else 3
    shape = (crop, crop) if frames is None else (frames, crop, crop)
    if conv_stem:
        dims = dims._replace(depth=dims.depth - 1)  # the stem costs about what a block does
        cut, embed = ConvStem(dims.width, norm_of("batch", axes), axes), nn.Identity()
    else:
        side = patch or 16
        cut, embed = Patchify(*([] if frames is None else [tubelet]), side, side, channels=3), None
    table = Positions(cut.grid(shape), dims.width, positions, first_axis_first=True)
    encoder = ViT(dims, cut, table, embed=embed, pool="class", drop_path=drop_path)
    xavier_qkv(encoder)
    nn.init.normal_(encoder.class_token, std=1e-6)  # pyright: ignore[reportArgumentType]
    return encoder


def mocov3(
    size: str = "S",
    frames: int | None = None,
    stride: int = 4,
    crop: int = 224,
    patch: int | None = None,
    tubelet: int = 2,
    conv_stem: bool = False,
    freeze_patches: bool | None = None,
    norm: Literal["batch", "group"] = "batch",
    dim: int = 256,
    hidden: int | None = None,
    temperature: float | None = None,
    momentum: float = 0.99,
    smallest_crop: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MoCo v3: find a view's other view among those of the batch; images, or clips when `frames` is given.

    Args:
        size: S (with 12 heads), B, L, H, or WIDTHxDEPTHxHEADS of a transformer; R50, R101, R18 … of a residual network; debug.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the image or clip, in pixels.
        patch: side of a patch, in pixels; 16 unless given. Of transformers.
        tubelet: length of a tubelet, in frames; for clips. Of transformers.
        conv_stem: convolutions in the place of patches, and a block less. Of transformers.
        freeze_patches: the embedding of patches does not learn; so it is unless given, but not with a convolutional stem.
        norm: batch, or group, which needs no other samples: of projector and predictor, and of a residual network.
        dim: width of queries and keys.
        hidden: width of hidden layers in projector and predictor; 4096 (debug 64) unless given.
        temperature: by which similarities are divided; 0.2, of residual networks 1, unless given.
        momentum: with which the encoder that makes the keys begins; it rises to 1.
        smallest_crop: least share of the area; 0.08, of residual networks 0.2, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    signal, clips = moco.signal_of(frames, stride), frames is not None
    residual = size.startswith("R")
    if residual:
        encoder = moco.backbone(size[1:], 64, norm_of(norm, axes=2 + clips), clips)
    else:
        encoder = transformer(size, frames, crop, patch, tubelet, conv_stem, "sincos")
        if not conv_stem if freeze_patches is None else freeze_patches:
            (encoder.patchify if conv_stem else encoder.embed).requires_grad_(False)  # type: ignore[union-attr]
    norms, hidden = norm_of(norm, axes=1), hidden or (64 if size == "debug" else 4096)
    temperature = temperature or (1.0 if residual else 0.2)
    area = (smallest_crop or (0.2 if residual else 0.08), 1.0)
    # The two views differ in what becomes of their sharpness and their colours (BYOL, 2006.07733, Table 6).
    colours = [ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(0.2)]
    crops, flips = RandomResizedCrop(crop, scale=area), [HorizontalFlip()] * flip
    return Recipe(
        objective=Agreement(
            key=signal.key,
            encoder=encoder,
            projector=Projector(
                encoder.width, [*[hidden] * (1 if residual else 2), dim], norms, last_norm=True, bias=False
            ),
            predictor=Projector(dim, [hidden, dim], norms, last_norm=not residual, bias=False),
            loss=partial(contrast, scale=1 / temperature),
            momentum=partial(cosine_to_one, start=momentum),
            weight=2 * temperature,
            contrasts=True,
        ),
        data=moco.views(
            signal,
            crop,
            [crops, *colours, GaussianBlur(1.0), *flips],
            [crops, *colours, GaussianBlur(BLUR_SECOND), Solarize(SUN_SECOND), *flips],
        ),
        optimizer=(
            Optimizer(kind="sgd", lr=0.05, momentum=0.9, nesterov=False, weight_decay=1e-4)
            if residual
            else Optimizer(lr=1.5e-4, weight_decay=0.1)
        ),
        schedule=Schedule(epochs=100 if residual else 300, warmup=10 if residual else 40, batch=4096),
        loader=Loader(batch=32 if clips else 256),
    )


def finetune(
    size: str = "S",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int = 4,
    crop: int = 224,
    patch: int | None = None,
    tubelet: int = 2,
    conv_stem: bool = False,
    norm: Literal["batch", "group"] = "batch",
    drop_path: float = 0.1,
    flip: bool = True,
) -> Recipe:
    """MoCo v3's encoder, fine-tuned as published: transformers as DeiT; residual networks with ResNet's settings.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the image or clip, in pixels.
        patch: side of a patch, in pixels; 16 unless given. Of transformers.
        tubelet: length of a tubelet, in frames; for clips. Of transformers.
        conv_stem: convolutions in the place of patches. Of transformers.
        norm: of residual networks: batch or group.
        drop_path: stochastic depth. Of transformers.
        flip: mirror at random; turn it off where left and right mean something.
    """
    if size.startswith("R"):
        return moco.finetune(
            size[1:], num_classes, multi_label, frames=frames, stride=stride, crop=crop, norm=norm, flip=flip
        )
    encoder = transformer(size, frames, crop, patch, tubelet, conv_stem, "learned", drop_path)
    signal = moco.signal_of(frames, stride)
    return Recipe(
        objective=Supervised(
            key=signal.key,
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            signal,
            transform=fine_tuning(crop, flip, bicubic=True),
            evaluation=centred(crop, bicubic=True),
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            clips=1 if frames is None else 5,
        ),
        # DeiT's rate is for 512 samples.
        optimizer=Optimizer(lr=2.5e-4, weight_decay=0.05),
        schedule=Schedule(epochs=150, warmup=5, batch=1024, min_lr=2.5e-6),
        loader=Loader(batch=64 if frames is None else 16),
    )
