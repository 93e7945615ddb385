"""MAE-ST: masked autoencoders as spatiotemporal learners.
Feichtenhofer, Fan, Li, He. NeurIPS 2022. arXiv:2205.09113

MAE on clips, with as little knowledge of space and time as possible: hide 90 % of the 2×16×16 tubelets, anywhere in
space-time; predict one of the two frames of each hidden one. Four crops are taken of every decoded video.

Published: Kinetics-400 81.3 / 84.8 / 85.1 % top-1 (ViT-B / L / H, 16 frames × 4, 7 × 3 views).
    unveil pretrain mae_st --data clips/ --out runs/mae-st
    unveil finetune runs/mae-st --data labelled/ --out runs/mae-st-ft
The numbers are those of the authors' configurations in PySlowFast, with which the released weights were made: 200
epochs of four crops (the paper counts 800; H 400), learning rate 1.6e-3 for its batch of 512, patches of 16² for H, too
(`--patch 14` is the later mae_st repository's pre-trained H). That repository's command has 100 epochs, warm-up 5, and
1.6e-3 for 256 videos of four crops. Its fine-tuning keeps the norm learned in
pre-training for the pooled features; here that norm begins anew, as in MAE.
"""

from typing import Literal

from unveil.data import Dense, HorizontalFlip, RandAugment, RandomResizedCrop, Video, centred
from unveil.decoders import TransformerDecoder
from unveil.encoders import Dimensions, Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Random
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels, truncated_linspace
from unveil.tokens import Patchify, Positions, SumPositions

PRESETS = {
    "small": {
        "mae_st": {
            "size": "S",
            "frames": 8,
            "crop": 112,
            "decoder_width": 192,
            "decoder_heads": 6,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 32,
            "optimizer.lr": 1.6e-3,
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
}

DECODER = {"debug": Dimensions(32, 2, 2), "nano": Dimensions(64, 2, 4)}
EPOCHS = {"L": 50}
LR = {"L": 2.4e-3, "H": 2.4e-3}
LAYER_DECAY = {"L": 0.75, "H": 0.8}
DROP_PATH = {"L": 0.2, "H": 0.2}
DROPOUT = {"H": 0.5}


def space_time(grid: tuple[int, ...], width: int, separable: bool) -> Positions | SumPositions:
    """Learned positions: one table for space plus one for time, or a single one for both."""
    if not separable:
        return Positions(grid, width, "learned")
    return SumPositions(Positions(grid, width, "learned", axes=(1, 2)), Positions(grid, width, "learned", axes=(0,)))


def mae_st(
    size: Size = "L",
    ratio: float = 0.9,
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    target_tubelet: int = 1,
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    normalize: Literal["patch"] | None = "patch",
    class_token: bool = True,
    separable: bool = True,
) -> Recipe:
    """MAE-ST: predict pixels of 90 % of a clip, hidden anywhere in space-time, from the rest.

    Args:
        size: of the encoder.
        ratio: share of tubelets that is hidden.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        tubelet: length of a tubelet, in frames.
        target_tubelet: frames of each tubelet that are predicted.
        decoder_width: width of the decoder's tokens; 512 (debug 32, nano 64) unless given.
        decoder_depth: blocks of the decoder; 4 (debug and nano 2) unless given.
        decoder_heads: attention heads of the decoder; 16 (debug 2, nano 4) unless given.
        normalize: subtract each patch's mean and divide by its deviation, or predict plain pixels.
        class_token: give encoder and decoder a class token each.
        separable: learn positions of space and of time apart, and add them.
    """
    patchify = Patchify(tubelet, patch, patch, channels=3)
    predicted = Patchify(target_tubelet, patch, patch, channels=3)
    grid = patchify.grid((frames, crop, crop))
    width = dimensions(size).width
    decoder = DECODER.get(size, Dimensions(512, 4, 16))
    decoder_width = decoder_width or decoder.width
    return Recipe(
        objective=MaskedAutoencoder(
            key="video",
            encoder=ViT(size, patchify, space_time(grid, width, separable), class_token=class_token),
            decoder=TransformerDecoder(
                width,
                predicted.width,
                space_time(grid, decoder_width, separable),
                width=decoder_width,
                depth=decoder_depth or decoder.depth,
                heads=decoder_heads or decoder.heads,
                class_token="own" if class_token else None,
            ),
            masker=Random(ratio),
            target=Pixels(predicted, "video", normalize=normalize, frames=truncated_linspace),
            loss=mse,
        ),
        data=Data(
            Video(Dense(frames, stride)),
            transform=[RandomResizedCrop(crop, scale=(0.5, 1.0)), HorizontalFlip()],
            evaluation=centred(crop, crop),
            repeats=4,
        ),
        optimizer=Optimizer(lr=8e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=400 if size == "H" else 200, warmup=60 if size == "H" else 30, batch=512, min_lr=5e-7),
        loader=Loader(batch=16),
        clip_gradient=0.02,
    )


def finetune(
    size: Size = "L",
    num_classes: int = 400,
    multi_label: bool = False,
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    patch_stride: int | None = None,
    tubelet: int = 2,
    drop_path: float | None = None,
    dropout: float | None = None,
    class_token: bool = True,
    separable: bool = True,
    flip: bool = True,
) -> Recipe:
    """MAE-ST's encoder, fine-tuned as in the released Kinetics-400 configurations: mean-pooled, layer-wise rates.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        patch_stride: pixels from one patch to the next, if patches shall overlap; the patch's side by default.
        tubelet: length of a tubelet, in frames.
        drop_path: stochastic depth; 0.1, for sizes L and H 0.2, unless given.
        dropout: before the classifier; 0.3, for size H 0.5, unless given.
        class_token: the encoder has one, as in pre-training.
        separable: learn positions of space and of time apart, as in pre-training.
        flip: mirror clips at random; turn it off where left and right mean something.
    """
    step = patch_stride or patch
    patchify = Patchify(tubelet, patch, patch, channels=3, stride=(tubelet, step, step))
    encoder = ViT(
        size,
        patchify,
        space_time(patchify.grid((frames, crop, crop)), dimensions(size).width, separable),
        class_token=class_token,
        norm="pooled",
        drop_path=DROP_PATH.get(size, 0.1) if drop_path is None else drop_path,
    )
    return Recipe(
        objective=Supervised(
            key="video",
            encoder=encoder,
            head=LinearHead(
                encoder.width, num_classes, dropout=DROPOUT.get(size, 0.3) if dropout is None else dropout, std=2e-5
            ),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            Video(Dense(frames, stride)),
            # timm's magnitude 7 of 10 is 21 of 30 here; its two operations apply with probability one half each.
            transform=[RandAugment(1, 21), RandomResizedCrop(crop), *[HorizontalFlip()] * flip],
            evaluation=centred(crop, crop),
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=2,
            clips=7,
            crops=3,
        ),
        # The configurations count videos, of which each gives two crops; here each crop is a sample.
        optimizer=Optimizer(lr=LR.get(size, 4.8e-3) / 2, weight_decay=0.05, layer_decay=LAYER_DECAY.get(size, 0.65)),
        schedule=Schedule(epochs=EPOCHS.get(size, 75), warmup=5, batch=512, min_lr=5e-6),
        loader=Loader(batch=8),
        clip_gradient=5.0,
    )
