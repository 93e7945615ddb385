"""VideoMAE: masked autoencoders are data-efficient learners for self-supervised video pre-training.
Tong, Song, Wang, Wang. NeurIPS 2022. arXiv:2203.12602

Hide 90 % of a clip's 2×16×16 tubelets, at the same places in every frame so that nothing can be copied from a
neighbouring one; predict their pixels, normalised per colour channel.

Published: Kinetics-400 79.0 / 81.5 / 85.2 / 86.6 % top-1 (ViT-S / B / L / H, 1600 epochs, 16 frames × 4, 5 × 3 views).
    unveil pretrain videomae --data clips/ --out runs/videomae
    unveil finetune runs/videomae --data labelled/ --out runs/videomae-ft
The numbers are those of the released Kinetics scripts. They give the decoder 12 blocks for L and H where the paper says
4, and fine-tune L with stochastic depth 0.1 where the paper says 0.2. The learning rate is 1.5e-4 for 256 clips.
"""

from typing import Literal

from unveil.data import Dense, HorizontalFlip, MultiScaleCrop, RandAugment, RandomResizedCrop, Uniform, Video, centred
from unveil.decoders import TransformerDecoder
from unveil.encoders import Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Random, Tube
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "videomae": {
            "size": "S",
            "frames": 8,
            "crop": 112,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 32,
            "optimizer.lr": 1.2e-3,
            "loader.batch": 16,
        },
        "finetune": {
            "size": "S",
            "frames": 8,
            "crop": 112,
            "schedule.epochs": 40,
            "schedule.batch": 16,
            "optimizer.lr": 8e-3,
            "loader.batch": 8,
            "sample.repeats": 1,
            "sample.clips": 2,
            "sample.crops": 1,
        },
    },
    "demo": {
        "videomae": {
            "size": "nano",
            "augment": False,
            "ratio": 0.75,
            "masking": "random",
            "positions": "sincos",
            "frames": 8,
            "stride": 2,
            "crop": 32,
            "patch": 8,
            "decoder_depth": 2,
            "decoder_heads": 4,
            "schedule.epochs": 64,
            "schedule.warmup": 1.5,
            "schedule.batch": 16,
            "schedule.min_lr": 0.0,
            "optimizer.lr": 3.2e-2,
            "loader.batch": 16,
            "clip_gradient": 1.0,
        },
        "finetune": {
            "size": "nano",
            "positions": "sincos",
            "frames": 8,
            "stride": 2,
            "crop": 32,
            "patch": 8,
            "flip": False,
            "augment": False,
            "drop_path": 0.0,
            "schedule.epochs": 80,
            "schedule.warmup": 8,
            "schedule.batch": 16,
            "schedule.min_lr": 0.0,
            "optimizer.lr": 3.2e-2,
            "optimizer.layer_decay": 1.0,
            "loader.batch": 16,
            "sample.repeats": 1,
            "sample.mixup": 0.0,
            "sample.cutmix": 0.0,
            "sample.erase": 0.0,
            "sample.clips": 1,
            "sample.crops": 1,
        },
    },
}

DECODER_DEPTH = {"debug": 2, "nano": 2, "L": 12, "H": 12}
EPOCHS = {"S": 150, "L": 35, "H": 50}
LR = {"L": 2e-3, "H": 1e-3}
BATCH = {"L": 128, "H": 512}
DROP_PATH = {"H": 0.2}
DROPOUT = {"H": 0.5}


def videomae(
    size: Size = "B",
    ratio: float = 0.9,
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    masking: Literal["tube", "random"] = "tube",
    positions: Literal["flat", "sincos"] = "flat",
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    normalize: Literal["channel"] | None = "channel",
    augment: bool = True,
) -> Recipe:
    """VideoMAE: predict the pixels of 90 % of a clip, hidden in tubes, from the rest.

    Args:
        size: of the encoder; the decoder is half as wide.
        ratio: share of tubes that is hidden.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        tubelet: length of a tubelet, in frames.
        masking: the same places in every frame, or any.
        positions: one sinusoid over all tokens in order, as published, or sines and cosines of time, row and column.
        decoder_depth: blocks of the decoder; 4, for sizes L and H 12 (debug and nano 2), unless given.
        decoder_heads: heads of the decoder; half the encoder's unless given.
        normalize: subtract each tubelet's mean and divide by its deviation, colour by colour, or predict plain pixels.
        augment: crop at several scales and mirror, as published; otherwise take the centre.
    """
    patchify = Patchify(tubelet, patch, patch, channels=3)
    grid = patchify.grid((frames, crop, crop))
    plain = centred(crop, crop)
    width, _, heads = dimensions(size)
    return Recipe(
        objective=MaskedAutoencoder(
            key="video",
            encoder=ViT(size, patchify, Positions(grid, width, positions), class_token=False, qkv_bias="qv"),
            decoder=TransformerDecoder(
                width,
                patchify.width,
                Positions(grid, width // 2, positions),
                width=width // 2,
                depth=decoder_depth or DECODER_DEPTH.get(size, 4),
                heads=decoder_heads or heads // 2,
                embed_bias=False,
                qkv_bias="qv",
            ),
            masker={"tube": Tube, "random": Random}[masking](ratio),
            target=Pixels(patchify, "video", normalize=normalize, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            loss=mse,
        ),
        data=Data(
            Video(Dense(frames, stride)),
            transform=[MultiScaleCrop(crop), HorizontalFlip()] if augment else plain,
            evaluation=plain,
        ),
        optimizer=Optimizer(lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=1600, warmup=40, batch=2048, min_lr=1.25e-6),
        loader=Loader(batch=32),
    )


def finetune(
    size: Size = "B",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 16,
    stride: int = 4,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int = 224,
    patch: int = 16,
    patch_stride: int | None = None,
    tubelet: int = 2,
    positions: Literal["flat", "sincos"] = "flat",
    drop_path: float | None = None,
    flip: bool = True,
    augment: bool = True,
) -> Recipe:
    """VideoMAE's encoder, fine-tuned as in the released Kinetics-400 scripts: mean-pooled, layer-wise learning rates.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        sampling: neighbouring frames, or one from each equal part of the video (Something-Something).
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        patch_stride: pixels from one patch to the next, if patches shall overlap; the patch's side by default.
        tubelet: length of a tubelet, in frames.
        positions: as in pre-training.
        drop_path: stochastic depth; 0.1, for size H 0.2, unless given.
        flip: mirror clips at random; turn it off where left and right mean something (Something-Something).
        augment: RandAugment and crops of random size, as published; otherwise take the centre.
    """
    plain = centred(crop, crop)
    step = patch_stride or patch
    patchify = Patchify(tubelet, patch, patch, channels=3, stride=(tubelet, step, step))
    encoder = ViT(
        size,
        patchify,
        Positions(patchify.grid((frames, crop, crop)), dimensions(size).width, positions),
        class_token=False,
        norm="pooled",
        drop_path=DROP_PATH.get(size, 0.1) if drop_path is None else drop_path,
        qkv_bias="qv",
    )
    return Recipe(
        objective=Supervised(
            key="video",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, dropout=DROPOUT.get(size, 0.0), std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            Video({"dense": Dense(frames, stride), "uniform": Uniform(frames)}[sampling]),
            # timm's magnitude 7 of 10 is 21 of 30 here; its four operations apply with probability one half each.
            transform=[
                *([RandAugment(2, 21), RandomResizedCrop(crop)] if augment else plain),
                *[HorizontalFlip()] * flip,
            ],
            evaluation=plain,
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=2,
            clips=5,
            crops=3,
        ),
        # The scripts count videos, of which each gives two crops; here each crop is a sample.
        optimizer=Optimizer(lr=LR.get(size, 5e-4) / 2, weight_decay=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=EPOCHS.get(size, 75), warmup=5, batch=2 * BATCH.get(size, 384), min_lr=1e-6 / 3),
        loader=Loader(batch=12),
    )
