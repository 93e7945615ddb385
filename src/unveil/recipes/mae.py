"""MAE: masked autoencoders are scalable vision learners.
He, Chen, Xie, Li, Dollár, Girshick. CVPR 2022. arXiv:2111.06377

Hide 75 % of an image's patches; encode the rest with a ViT, and let a small decoder predict the pixels of the hidden
ones, normalised patch by patch. Afterwards the encoder alone is kept.

Published: ImageNet-1K fine-tuned 83.6 / 85.9 / 86.9 % top-1 (ViT-B / L / H, 224², 1600 epochs).
    unveil pretrain mae --data images/ --out runs/mae
    unveil finetune runs/mae --data labelled/ --out runs/mae-ft
The numbers are those of the released script (800 epochs); the paper's best models are trained for 1600.
"""

from typing import Literal

from unveil.data import HorizontalFlip, Image, RandomResizedCrop, centred, fine_tuning
from unveil.decoders import TransformerDecoder
from unveil.encoders import Dimensions, Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Random
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "mae": {
            "size": "S",
            "crop": 112,
            "decoder_width": 192,
            "decoder_depth": 4,
            "decoder_heads": 6,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 64,
            "optimizer.lr": 6e-4,
        },
        "finetune": {
            "size": "S",
            "crop": 112,
            "schedule.epochs": 40,
            "schedule.batch": 32,
            "optimizer.lr": 4e-3,
        },
    },
}

DECODER = {"debug": Dimensions(32, 2, 2), "nano": Dimensions(64, 2, 4)}
EPOCHS = {"L": 50, "H": 50}
LR = {"L": 1e-3, "H": 1e-3}
LAYER_DECAY = {"L": 0.75, "H": 0.75}
DROP_PATH = {"L": 0.2, "H": 0.3}


def mae(
    size: Size = "B",
    ratio: float = 0.75,
    crop: int = 224,
    patch: int | None = None,
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    normalize: Literal["patch"] | None = "patch",
) -> Recipe:
    """MAE: predict the pixels of 75 % of an image's patches from the rest.

    Args:
        size: of the encoder.
        ratio: share of patches that is hidden.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; 16, or 14 for size H, unless given.
        decoder_width: width of the decoder's tokens; 512 (debug 32, nano 64) unless given.
        decoder_depth: blocks of the decoder; 8 (debug and nano 2) unless given.
        decoder_heads: attention heads of the decoder; 16 (debug 2, nano 4) unless given.
        normalize: subtract each patch's mean and divide by its deviation, or predict plain pixels.
    """
    patch = patch or (14 if size == "H" else 16)
    patchify = Patchify(patch, patch, channels=3)
    grid = patchify.grid((crop, crop))
    width = dimensions(size).width
    decoder = DECODER.get(size, Dimensions(512, 8, 16))
    decoder_width = decoder_width or decoder.width
    return Recipe(
        objective=MaskedAutoencoder(
            key="image",
            encoder=ViT(size, patchify, Positions(grid, width)),
            decoder=TransformerDecoder(
                width,
                patchify.width,
                Positions(grid, decoder_width),
                width=decoder_width,
                depth=decoder_depth or decoder.depth,
                heads=decoder_heads or decoder.heads,
                class_token="shared",
            ),
            masker=Random(ratio),
            target=Pixels(patchify, "image", normalize=normalize),
            loss=mse,
        ),
        data=Data(
            Image(),
            transform=[RandomResizedCrop(crop, scale=(0.2, 1.0), bicubic=True), HorizontalFlip()],
            evaluation=centred(crop),
        ),
        optimizer=Optimizer(lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=800, warmup=40, batch=4096),
        loader=Loader(batch=64),
    )


def finetune(
    size: Size = "B",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    patch: int | None = None,
    patch_stride: int | None = None,
    pool: Literal["mean", "class"] = "mean",
    drop_path: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MAE's encoder, fine-tuned as published (FINETUNE.md): mean-pooled, with layer-wise learning rates.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; 16, or 14 for size H, unless given.
        patch_stride: pixels from one patch to the next, if patches shall overlap; the patch's side by default.
        pool: classify the mean of the tokens or the class token.
        drop_path: stochastic depth; 0.1, for size L 0.2, for size H 0.3, unless given.
        flip: mirror images at random; turn it off where left and right mean something.
    """
    patch = patch or (14 if size == "H" else 16)
    step = patch_stride or patch
    patchify = Patchify(patch, patch, channels=3, stride=(step, step))
    encoder = ViT(
        size,
        patchify,
        Positions(patchify.grid((crop, crop)), dimensions(size).width, "learned"),
        pool=pool,
        norm="pooled" if pool == "mean" else "tokens",
        drop_path=DROP_PATH.get(size, 0.1) if drop_path is None else drop_path,
    )
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
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
        ),
        optimizer=Optimizer(lr=LR.get(size, 5e-4), weight_decay=0.05, layer_decay=LAYER_DECAY.get(size, 0.65)),
        schedule=Schedule(epochs=EPOCHS.get(size, 100), warmup=5, batch=1024, min_lr=2.5e-7),
        loader=Loader(batch=32),
    )
