"""FLIP: scaling language-image pre-training via masking.
Li, Fan, Hu, Feichtenhofer, He. CVPR 2023. arXiv:2212.00794

CLIP, but half of each image's patches are left out, so that twice as many pairs fit into a batch and twice as many are seen in
the same time. Afterwards a short tuning on whole images closes the gap; features are always taken of whole ones.

Published: ImageNet-1K zero-shot 68.0 / 74.3 / 75.5 % top-1 (ViT-B/16, L/16, H/14, LAION-400M, 12.8 billion pairs seen).
    unveil pretrain flip --data pairs/ --out runs/flip --ratio 0.5
    unveil pretrain flip --data pairs/ --out runs/flip-tuned --start runs/flip --preset tune
The numbers are those of the released script: positions of images are fixed, those of texts learned; texts see themselves in both
directions, and their first token stands for them. There the class token is averaged with the patches, here the patches alone are;
its tokenizer is BERT's, a download (`--tokenizer tokenizer.json`). The script masks no text; `--text-ratio` does what the paper tried:
padding goes first. `--ratio 0` is CLIP with these towers.
"""

from unveil.data import HorizontalFlip, Image, RandomResizedCrop, centred
from unveil.data.captions import Captions
from unveil.encoders import TextTransformer, ViT, dimensions
from unveil.errors import UserError
from unveil.masking import Random, TextMasker
from unveil.objectives import TwoTower
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Data, Loader, Optimizer, Recipe, Schedule
from unveil.recipes.clip import Towers, classifier, towers_of
from unveil.tokens import Patchify, Positions

PRESETS = {
    "small": {
        "flip": {
            "size": "S/16",
            "text_size": "256x4x4",
            "width": 256,
            "crop": 112,
            "vocabulary": 8192,
            "schedule.epochs": 40,
            "schedule.warmup": 2,
            "schedule.batch": 128,
            "optimizer.lr": 1e-3,
            "loader.batch": 128,
        },
        "finetune": {"size": "S/16", "crop": 112, "schedule.epochs": 40, "schedule.batch": 32, "optimizer.lr": 4e-3},
    },
    # The unmasked phase: a hundredth of the rate, a hundredth of the pairs.
    "tune": {
        "flip": {
            "ratio": 0.0,
            "text_ratio": 0.0,
            "optimizer.lr": 4e-8,
            "schedule.epochs": 0.32,
            "schedule.warmup": 0.0,
        },
    },
}


def image_tower(towers: Towers, crop: int, drop_path: float = 0.0) -> ViT:
    """A plain ViT with fixed positions, read by the mean of its patches.

    Raises:
        UserError: the size is that of a ResNet.
    """
    if towers.patch is None:
        raise UserError(
            f"--size {towers.image}: a ResNet sees whole images, and cannot leave patches out. Use the recipe clip."
        )
    patchify = Patchify(towers.patch, towers.patch, channels=3)
    positions = Positions(patchify.grid((crop, crop)), dimensions(towers.image).width)
    return ViT(towers.image, patchify, positions, drop_path=drop_path)


def flip(
    size: str = "B/16",
    text_size: str | None = None,
    width: int | None = None,
    ratio: float = 0.5,
    text_ratio: float = 0.0,
    crop: int = 224,
    patch: int | None = None,
    context: int = 32,
    vocabulary: int = 30523,
    tokenizer: str = "",
    flip: bool = True,
) -> Recipe:
    """FLIP: masked images and their captions find each other.

    Args:
        size: of both towers: S/32, S/16, B/32, B/16, L/16, L/14, H/14, nano, debug; or of the image's as WIDTHxDEPTHxHEADS.
        text_size: of the text's tower, as WIDTHxDEPTHxHEADS; the published one unless given.
        width: of the space that both are projected into; the published one unless given.
        ratio: share of an image's patches that is left out in training; 0 is CLIP.
        text_ratio: share of a text's tokens that is left out in training, padding first.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; the size's own unless given.
        context: the most tokens of a caption; what is longer is cut.
        vocabulary: the most entries of a tokenizer that is trained on the captions; of another one its own number.
        tokenizer: file of a tokenizer: Hugging Face's tokenizer.json or CLIP's merges; empty to train one on the captions.
        flip: mirror at random; turn it off where captions tell left from right.
    """
    towers = towers_of(size, text_size, patch, width)
    image = image_tower(towers, crop)
    text = TextTransformer(towers.text, vocabulary, context, causal=False, pool="first")
    return Recipe(
        objective=TwoTower(
            image,
            text,
            towers.width,
            masker=Random(ratio) if ratio else None,
            text_masker=TextMasker(text_ratio) if text_ratio else None,
        ),
        data=Data(
            Image(),
            transform=[RandomResizedCrop(crop, scale=(0.5, 1.0), bicubic=True), *[HorizontalFlip()] * flip],
            evaluation=centred(crop),
            text=Captions(context, vocabulary, tokenizer),
        ),
        optimizer=Optimizer(lr=4e-6, betas=(0.9, 0.95), weight_decay=0.2),
        schedule=Schedule(epochs=32, warmup=0.128, batch=65536),
        loader=Loader(batch=256),
    )


def finetune(
    size: str = "B/16",
    num_classes: int = 1000,
    multi_label: bool = False,
    crop: int = 224,
    patch: int | None = None,
    drop_path: float = 0.1,
    flip: bool = True,
) -> Recipe:
    """FLIP's image tower with a classifier, fine-tuned as published but for AutoAugment, whose place RandAugment takes.

    Args:
        size: see `flip`; WIDTHxDEPTHxHEADS for others.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        crop: side of the image, in pixels.
        patch: side of a patch, in pixels; the size's own unless given.
        drop_path: stochastic depth.
        flip: mirror images at random; turn it off where left and right mean something.
    """
    encoder = image_tower(towers_of(size, "debug", patch, None), crop, drop_path)
    return classifier(encoder, num_classes, multi_label, crop, flip, IMAGENET_MEAN, IMAGENET_STD)
