"""SimSiam: exploring simple siamese representation learning.
Chen, He. CVPR 2021. arXiv:2011.10566

Predict what the network itself makes of another view of the same picture. No negatives and no second network: it does not collapse
because no gradient reaches what is predicted.

Published: ImageNet-1K linear probe 68.1 % top-1 (ResNet-50, 100 epochs, batch 512).
    unveil pretrain simsiam --data images/ --out runs/simsiam
    unveil evaluate runs/simsiam --by linear --data labelled/
The numbers are those of the released script, whose batch norms see all devices' samples (`--sync-batch-norm true`). Table 1 of the
paper is `--stop-gradient false`: it collapses, and the report says so. Of clips two moments of a video agree; their network is
Slow. The paper publishes no fine-tuning on ImageNet: `unveil finetune` has the settings of ResNet and Slow.
"""

from typing import Literal

from unveil.heads import Projector
from unveil.layers import norm_of
from unveil.losses import negative_cosine
from unveil.objectives import Agreement
from unveil.recipe import Loader, Optimizer, Recipe, Schedule
from unveil.recipes import moco
from unveil.recipes.moco import finetune

__all__ = ["PRESETS", "finetune", "simsiam"]

PRESETS = {
    "small": {
        "simsiam": {
            "size": "2,2,2,2",
            "width": 32,
            "crop": 112,
            "dim": 512,
            "hidden": 128,
            "schedule.epochs": 200,
            "schedule.batch": 64,
            "optimizer.lr": 0.1,
        },
        "finetune": moco.PRESETS["small"]["finetune"],
    },
}


def simsiam(
    size: str = "50",
    frames: int | None = None,
    stride: int = 4,
    crop: int = 224,
    width: int = 64,
    norm: Literal["batch", "group"] = "batch",
    dim: int | None = None,
    hidden: int | None = None,
    stop_gradient: bool = True,
    constant_predictor: bool = True,
    flip: bool = True,
) -> Recipe:
    """SimSiam: predict one view's features from another's; images, or clips when `frames` is given.

    Args:
        size: layers: 18, 34, 50, 101, 152, with groups and their width 50_32x4d; or blocks of the four stages: 2,2,2,2; or debug.
        frames: of a clip; images when there are none. Taken from the data unless given.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the image or clip, in pixels.
        width: channels of the stem; the stages have multiples of it.
        norm: batch, or group, which needs no other samples.
        dim: width of what is predicted; 2048 (debug 64) unless given.
        hidden: width of the predictor's hidden layer; a quarter of `dim` unless given.
        stop_gradient: no gradient reaches what is predicted; without, everything becomes one point.
        constant_predictor: the predictor's learning rate does not fall.
        flip: mirror at random; turn it off where left and right mean something.
    """
    signal = moco.signal_of(frames, stride)
    clips = frames is not None
    encoder = moco.backbone(size, width, norm_of(norm, axes=2 + clips), clips)
    dim = dim or (64 if size == "debug" else 2048)
    norms = norm_of(norm, axes=1)
    transform = moco.augmentations(crop, "v2", flip)
    return Recipe(
        objective=Agreement(
            key=signal.key,
            encoder=encoder,
            projector=Projector(
                encoder.width, [encoder.width, encoder.width, dim], norms, last_norm=True, bias="frozen"
            ),
            predictor=Projector(dim, [hidden or dim // 4, dim], norms, constant_rate=constant_predictor),
            loss=negative_cosine,
            weight=0.5,
            stop_gradient=stop_gradient,
        ),
        data=moco.views(signal, crop, transform, transform),
        optimizer=Optimizer(kind="sgd", lr=0.05, momentum=0.9, nesterov=False, weight_decay=1e-4),
        schedule=Schedule(epochs=100, warmup=0, batch=512),
        loader=Loader(batch=16 if clips else 128),
    )
