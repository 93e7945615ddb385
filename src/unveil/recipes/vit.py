"""ViT: an image is worth 16x16 words: transformers for image recognition at scale.
Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit, Houlsby.
ICLR 2021. arXiv:2010.11929

Cut an image into patches, a clip into tubelets, and classify the sequence with a plain transformer, from scratch.

Published: ImageNet-1K from scratch 82.3 / 82.6 / 83.1 % top-1 (ViT-B / L / H, 224², with the settings below).
    unveil train vit --data labelled/ --out runs/vit
The ViT paper itself reports 77.9 % for B/16 trained on ImageNet-1K alone; the settings here are the stronger ones of
the MAE paper (He et al. 2022, Table 11): heavy augmentation, weight decay 0.3, averaged weights. Clips use the same.
"""

from typing import Literal

from unveil.data import Dense, Image, Uniform, Video, centred, fine_tuning
from unveil.encoders import Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "size": "S",
        "crop": 112,
        "drop_path": 0.1,
        "schedule.epochs": 100,
        "schedule.warmup": 5,
        "schedule.batch": 32,
        "optimizer.lr": 2e-3,
        "optimizer.weight_decay": 0.05,
        "loader.batch": 16,
        "ema": 0.0,
    },
}

EPOCHS = {"L": 200, "H": 200}
DROP_PATH = {"L": 0.2, "H": 0.2}


def vit(
    size: Size = "B",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int = 4,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int = 224,
    patch: int | None = None,
    patch_stride: int | None = None,
    tubelet: int = 2,
    pool: Literal["class", "mean"] = "class",
    drop_path: float | None = None,
    flip: bool = True,
) -> Recipe:
    """ViT: classify images, or clips when `frames` is given, from scratch.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        sampling: neighbouring frames, or one from each equal part of the video.
        crop: side of the image or clip, in pixels.
        patch: side of a patch, in pixels; 16, or 14 for size H, unless given.
        patch_stride: pixels from one patch to the next, if patches shall overlap; the patch's side by default.
        tubelet: length of a tubelet, in frames; for clips.
        pool: classify the class token or the mean of the others.
        drop_path: stochastic depth; 0.1, for sizes L and H 0.2, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    patch = patch or (14 if size == "H" else 16)
    step = patch_stride or patch
    if frames is None:
        key, signal, clips, crops = "image", Image(), 1, 1
        patchify, shape = Patchify(patch, patch, channels=3, stride=(step, step)), (crop, crop)
    else:
        clip = {"dense": Dense(frames, stride), "uniform": Uniform(frames)}[sampling]
        key, signal, clips, crops = "video", Video(clip), 5, 3
        patchify, shape = (
            Patchify(tubelet, patch, patch, channels=3, stride=(tubelet, step, step)),
            (frames, crop, crop),
        )
    encoder = ViT(
        size,
        patchify,
        Positions(patchify.grid(shape), dimensions(size).width, "learned"),
        class_token=pool == "class",
        pool=pool,
        drop_path=DROP_PATH.get(size, 0.1) if drop_path is None else drop_path,
    )
    return Recipe(
        objective=Supervised(
            key=key,
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=Data(
            signal,
            transform=fine_tuning(crop, flip),
            evaluation=centred(crop),
            mixup=0.8,
            cutmix=1.0,
            clips=clips,
            crops=crops,
        ),
        optimizer=Optimizer(lr=1e-4, betas=(0.9, 0.95), weight_decay=0.3),
        schedule=Schedule(epochs=EPOCHS.get(size, 300), warmup=20, batch=4096),
        loader=Loader(batch=64 if frames is None else 16),
        ema=0.9999,
    )
