"""OmniMAE: single model masked pretraining on images and videos.
Girdhar, El-Nouby, Singh, Alwala, Joulin, Misra. CVPR 2023. arXiv:2206.08356

One ViT for images and clips: an image is a clip of two equal frames, so that both are cut into the same 2×16×16 tubelets.
Hide 90 % of an image's and 95 % of a clip's, and predict their pixels, normalised per colour channel. A batch holds images or
clips; of each decoded file several crops are taken.

Published: ImageNet-1K 83.0 / 85.1 / 86.5 % top-1, Something-Something v2 69.5 / 74.2 / 75.3 % (ViT-B / L / H).
    unveil pretrain omnimae --data photos/ --data clips/ --out runs/omnimae
    unveil finetune runs/omnimae --data labelled/ --out runs/omnimae-ft
    unveil finetune runs/omnimae --data labelled/ --settings images --out runs/omnimae-images
The numbers are those of the released ViT-B configurations, but for the ratios, which are the paper's: the configuration has
0.75 for images and 0.9 for clips (`--image-ratio 0.75 --ratio 0.9`). It takes four crops of a clip and one of an image, and
sees a clip in every fourth epoch; here four crops are taken of either, in a fourth of its 800 epochs, which shows each file
as often. Its clips last 2.7 seconds: 16 frames, 2 apart at the 12 frames a second of Something-Something. Fine-tuning on
images decays weights by 1e-4. Its README has the accuracies of the two data sets exchanged.
"""

from typing import Literal

from unveil.data import Dense, HorizontalFlip, RandAugment, RandomResizedCrop, Visual, centred
from unveil.decoders import TransformerDecoder
from unveil.encoders import Dimensions, Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import ByLength, Random, Tube
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "omnimae": {
            "size": "S",
            "frames": 8,
            "crop": 112,
            "ratio": 0.9,
            "image_ratio": 0.75,
            "schedule.epochs": 100,
            "schedule.warmup": 5,
            "schedule.batch": 64,
            "optimizer.lr": 1.2e-3,
            "loader.batch": 32,
        },
        "finetune": {
            "size": "S",
            "frames": 8,
            "crop": 112,
            "schedule.epochs": 40,
            "schedule.warmup": 5,
            "schedule.batch": 16,
            "optimizer.lr": 8e-3,
            "loader.batch": 8,
            "sample.clips": 2,
            "sample.crops": 1,
        },
    },
}

DECODER = {
    "debug": Dimensions(32, 2, 2), "nano": Dimensions(64, 2, 4), "Ti": Dimensions(192, 4, 16), "S": Dimensions(192, 4, 16),
    "B": Dimensions(384, 4, 16), "H": Dimensions(512, 8, 16),
}  # fmt: skip


def omnimae(
    size: Size = "B",
    ratio: float = 0.95,
    image_ratio: float = 0.9,
    frames: int = 16,
    stride: int = 2,
    crop: int = 224,
    patch: int | None = None,
    tubelet: int = 2,
    masking: Literal["random", "tube"] = "random",
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    normalize: Literal["channel"] | None = "channel",
) -> Recipe:
    """OmniMAE: predict the pixels of 95 % of a clip, or 90 % of an image, from the rest.

    Args:
        size: of the encoder.
        ratio: share of a clip's tubelets that is hidden.
        image_ratio: share of an image's that is hidden.
        frames: of a clip; longer than a tubelet, which is all that an image lasts.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip or image, in pixels.
        patch: side of a tubelet, in pixels; 16, or 14 for size H, unless given.
        tubelet: length of a tubelet, in frames, and of an image.
        masking: hide any tubelets of a clip, or the same places in every frame.
        decoder_width: width of the decoder's tokens; 384, for sizes L and H 512 (S 192, debug 32, nano 64), unless given.
        decoder_depth: blocks of the decoder; 4, for size H 8 (debug and nano 2), unless given.
        decoder_heads: attention heads of the decoder; 16 (debug 2, nano 4) unless given.
        normalize: subtract each tubelet's mean and divide by its deviation, colour by colour, or predict plain pixels.
    """
    patch = patch or (14 if size == "H" else 16)
    patchify = Patchify(tubelet, patch, patch, channels=3)
    grid = patchify.grid((frames, crop, crop))
    width = dimensions(size).width
    decoder = DECODER.get(size, Dimensions(512, 4, 16))
    return Recipe(
        objective=MaskedAutoencoder(
            key="video",
            encoder=ViT(size, patchify, Positions(grid, width, "flat"), class_token=False),
            decoder=TransformerDecoder(
                width,
                patchify.width,
                Positions(grid, width, "flat"),
                width=decoder_width or decoder.width,
                depth=decoder_depth or decoder.depth,
                heads=decoder_heads or decoder.heads,
                positions_first=True,
                qkv_bias=False,
            ),
            masker=ByLength(still=Tube(image_ratio), moving={"random": Random, "tube": Tube}[masking](ratio)),
            target=Pixels(
                patchify,
                "video",
                normalize="channel variance" if normalize else None,
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
            ),
            loss=mse,
        ),
        data=Data(
            Visual(Dense(frames, stride), still=tubelet),
            transform=[RandomResizedCrop(crop, scale=(0.2, 1.0), bicubic=True), HorizontalFlip()],
            evaluation=centred(crop, crop),
            repeats=4,
        ),
        optimizer=Optimizer(lr=2e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=200, warmup=10, batch=2048),
        loader=Loader(batch=32),
    )


def finetune(
    size: Size = "B",
    num_classes: int = 174,
    multi_label: bool = False,
    settings: Literal["clips", "images"] = "clips",
    frames: int = 16,
    stride: int = 2,
    crop: int = 224,
    patch: int | None = None,
    patch_stride: int | None = None,
    tubelet: int = 2,
    drop_path: float = 0.1,
    flip: bool | None = None,
) -> Recipe:
    """OmniMAE's encoder, fine-tuned as in the released configurations: mean-pooled, layer-wise learning rates.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        settings: augmentation and schedule as published for clips (Something-Something v2) or for images (ImageNet-1K); the
            network takes either, whichever was chosen.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip or image, in pixels.
        patch: side of a tubelet, in pixels; 16, or 14 for size H, unless given.
        patch_stride: pixels from one patch to the next, if patches shall overlap; the patch's side by default.
        tubelet: length of a tubelet, in frames, and of an image.
        drop_path: stochastic depth.
        flip: mirror at random; images are, clips are not (left and right mean something in Something-Something), unless given.
    """
    images = settings == "images"
    patch = patch or (14 if size == "H" else 16)
    step = patch_stride or patch
    patchify = Patchify(tubelet, patch, patch, channels=3, stride=(tubelet, step, step))
    encoder = ViT(
        size,
        patchify,
        Positions(patchify.grid((frames, crop, crop)), dimensions(size).width, "flat"),
        class_token=False,
        norm="pooled",
        drop_path=drop_path,
    )
    # timm's magnitudes 9 and 7 of 10 are 27 and 21 of 30 here; its operations apply with probability one half each.
    augment = RandAugment(1, 27) if images else RandAugment(2, 21)
    mirror = [HorizontalFlip()] * (images if flip is None else flip)
    return Recipe(
        objective=Supervised(
            key="video",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            Visual(Dense(frames, stride), still=tubelet),
            transform=[RandomResizedCrop(crop, bicubic=images), *mirror, augment],
            evaluation=centred(crop, crop, bicubic=images),
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            clips=1 if images else 5,
            crops=1 if images else 3,
        ),
        optimizer=Optimizer(lr=1e-3, weight_decay=1e-4 if images else 0.05, layer_decay=0.65 if images else 0.75),
        schedule=Schedule(
            epochs=100, warmup=5 if images else 12.5, batch=1024 if images else 256, min_lr=2.5e-7 if images else 1e-6
        ),
        loader=Loader(batch=32 if images else 8),
    )
