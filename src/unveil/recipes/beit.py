"""BEiT: BERT pre-training of image transformers.
Bao, Dong, Piao, Wei. ICLR 2022. arXiv:2106.08254

Hide blocks of an image, 40 % of its patches, and predict for each hidden patch not its pixels but its visual word: the code
that a tokenizer, trained beforehand, gives that place of the whole image.

Published: ImageNet-1K fine-tuned 83.2 / 85.2 % top-1 (ViT-B / L, 224², 800 epochs on ImageNet-1K).
    unveil train dvae --data images/ --out runs/tokenizer
    unveil pretrain beit --data images/ --tokenizer runs/tokenizer --out runs/beit
    unveil finetune runs/beit --data labelled/ --out runs/beit-ft
The paper's tokenizer is DALL-E's, trained on 250 million images; here it is the run that --tokenizer names. The numbers are
those of the released script: 75 of 196 patches, the last block cut to make exactly as many in every sample, and its settings
of fine-tuning without labels of ImageNet-22K between. Colours are jittered after the crop, there before it.
"""

from functools import partial
from typing import Any, Literal

from torch import nn

from unveil.borrowing import decided_by
from unveil.data import ColorJitter, HorizontalFlip, Image, RandomResizedCrop, centred, fine_tuning
from unveil.decoders import LinearDecoder
from unveil.encoders import DalleEncoder, DalleSize, Size, VisualTokenizer, ViT, dimensions
from unveil.errors import UserError
from unveil.heads import LinearHead
from unveil.layers import RelativePositionBias, by_depth
from unveil.losses import classification, cross_entropy
from unveil.masking import Block
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Borrowed, Data, Loader, Optimizer, Recipe, Schedule
from unveil.recipes import dvae
from unveil.targets import Codes
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "beit": {
            "size": "S",
            "crop": 112,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 64,
            "optimizer.lr": 6e-4,
        },
        "finetune": {
            "size": "S",
            "crop": 112,
            "schedule.epochs": 40,
            "schedule.warmup": 5,
            "schedule.batch": 32,
            "optimizer.lr": 4e-3,
        },
    },
}

#: Of BEiT's images, before fine-tuning and in it.
MEAN = STD = (0.5, 0.5, 0.5)
#: Patches that are hidden, and that a block has at least, of the 196 that an image of 224² has.
HIDDEN, SMALLEST = 75 / 196, 16 / 196
LAYER_SCALE = {"L": 1e-5}
#: Of fine-tuning.
EPOCHS, WARMUP = {"L": 50}, {"L": 5}
LR, LAYER_DECAY, DROP_PATH = {"L": 2.5e-4}, {"L": 0.75}, {"L": 0.2}


def beit(
    size: Size = "B",
    ratio: float = HIDDEN,
    crop: int = 224,
    patch: int = 16,
    positions: Literal["relative", "absolute"] = "relative",
    layer_scale: float | None = None,
    drop_path: float = 0.1,
    tokenizer: str | None = None,
    tokenizer_size: DalleSize = "B",
    vocab: int = 8192,
) -> Recipe:
    """BEiT: predict the visual words of patches that are hidden in blocks.

    Args:
        size: of the encoder.
        ratio: share of patches that is hidden.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels.
        positions: a bias of the attention by distance, or a learned table.
        layer_scale: where the factors of each block's branches begin; 0.1, for size L 1e-5, unless given; 0 for no factors.
        drop_path: stochastic depth.
        tokenizer: run folder of a dVAE, whose codes are predicted: unveil train dvae makes one.
        tokenizer_size: the tokenizer's; taken from its run.
        vocab: how many codes it has; taken from its run.
    """
    patchify = Patchify(patch, patch, channels=3)
    grid = patchify.grid((crop, crop))
    places = grid[0] * grid[1]
    encoder = _encoder(size, patchify, grid, positions, layer_scale, drop_path, shared=True, masked="replace")
    borrowed = [Borrowed("target.tokenizer", tokenizer, "tokenizer", "--tokenizer")] if tokenizer else []
    return Recipe(
        objective=MaskedAutoencoder(
            key="image",
            encoder=encoder,
            decoder=LinearDecoder(encoder.width, vocab),
            masker=Block(ratio, smallest=max(1, round(SMALLEST * places))),
            target=Codes(VisualTokenizer(DalleEncoder(tokenizer_size), vocab), "image", MEAN, STD, dvae.MEAN, dvae.STD),
            loss=cross_entropy,
        ),
        data=Data(
            Image(),
            transform=[RandomResizedCrop(crop, bicubic=True), HorizontalFlip(), ColorJitter(0.4, 0.4, 0.4)],
            evaluation=centred(crop, bicubic=True),
            mean=MEAN,
            std=STD,
        ),
        optimizer=Optimizer(lr=1.875e-4, weight_decay=0.05),
        schedule=Schedule(epochs=800, warmup=10, batch=2048, min_lr=1.25e-6),
        loader=Loader(batch=32),
        clip_gradient=3.0,
        borrowed=borrowed,
    )


def finetune(
    size: Size = "B",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    patch: int = 16,
    positions: Literal["relative", "absolute"] = "relative",
    layer_scale: float | None = None,
    pool: Literal["mean", "class"] = "mean",
    drop_path: float | None = None,
    flip: bool = True,
) -> Recipe:
    """BEiT's encoder, fine-tuned as published: each block with a bias of its own, mean-pooled, with layer-wise rates.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels.
        positions: a bias of the attention by distance, or a learned table.
        layer_scale: where the factors of each block's branches begin; 0.1, for size L 1e-5, unless given; 0 for no factors.
        pool: classify the mean of the tokens or the class token.
        drop_path: stochastic depth; 0.1, for size L 0.2, unless given.
        flip: mirror images at random; turn it off where left and right mean something.
    """
    patchify = Patchify(patch, patch, channels=3)
    drop_path = DROP_PATH.get(size, 0.1) if drop_path is None else drop_path
    grid = patchify.grid((crop, crop))
    encoder = _encoder(size, patchify, grid, positions, layer_scale, drop_path, shared=False, pool=pool)
    return Recipe(
        objective=Supervised(
            key="image",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            Image(),
            transform=fine_tuning(crop, flip, bicubic=True),
            evaluation=centred(crop, bicubic=True),
            mean=MEAN,
            std=STD,
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
        ),
        optimizer=Optimizer(lr=LR.get(size, 1e-3), weight_decay=0.05, layer_decay=LAYER_DECAY.get(size, 0.65)),
        schedule=Schedule(epochs=EPOCHS.get(size, 100), warmup=WARMUP.get(size, 20), batch=1024, min_lr=2.5e-7),
        loader=Loader(batch=32),
    )


def _encoder(
    size: Size,
    patchify: Patchify,
    grid: tuple[int, ...],
    positions: str,
    layer_scale: float | None,
    drop_path: float,
    shared: bool,
    masked: Literal["drop", "replace"] = "drop",
    pool: Literal["mean", "class"] | None = None,
) -> ViT:
    """BEiT's vision transformer; `shared`: one bias for all blocks; `pool` of a classifier, None before there is one."""
    width, depth, heads = dimensions(size)
    bias: nn.Module | None = None
    if positions == "relative":
        one = partial(RelativePositionBias, grid, heads)
        bias = one() if shared else nn.ModuleList(one() for _ in range(depth))
    return ViT(
        size,
        patchify,
        None if positions == "relative" else Positions(grid, width, "learned"),
        attention_bias=bias,
        masked=masked,
        pool=pool or "mean",
        norm="pooled" if pool == "mean" else "tokens",
        drop_path=drop_path,
        qkv_bias="qv",
        layer_scale=(LAYER_SCALE.get(size, 0.1) if layer_scale is None else layer_scale) or None,
        initialise=by_depth,
    )


def _with_tokenizer(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a pre-training that its tokenizer's run decides.

    Raises:
        UserError: none is named, or it is no dVAE, has no weights, or contradicts the other flags.
    """
    make = "`unveil train dvae --data … --out runs/tokenizer` makes one."
    if not flags.get("tokenizer"):
        raise UserError(f"beit predicts the codes of a tokenizer: name its run with --tokenizer. {make}")
    decides = {"tokenizer_size": "size", "vocab": "vocab"}
    flags, run = decided_by(flags, "tokenizer", dvae.dvae, decides, "which gives images no codes", make)
    if colours := [flag for flag in ("sample.mean", "sample.std") if flag in run.info["flags"]]:
        raise UserError(
            f"--tokenizer {run.path}: trained with --{colours[0]}, other colours than beit shows a tokenizer."
        )
    return flags


#: What is settled before a run begins, for each function of this module that asks for it.
SETTLED = {"beit": _with_tokenizer}
