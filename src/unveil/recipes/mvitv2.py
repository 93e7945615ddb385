"""MViTv2: improved multiscale vision transformers for classification and detection.
Li, Wu, Fan, Mangalam, Xiong, Malik, Feichtenhofer.
CVPR 2022. arXiv:2112.01526

MViT with positions that are relative, one axis at a time, pooled queries that are added to what attention found, pooling in
every block, and a width that grows in the attention.

Published: Kinetics-400 81.0 / 82.9 / 86.1 % top-1 (S 16x4, B 32x3 with 5 × 1, L 40x3 with 5 × 3 views); ImageNet-1K
82.3 / 83.6 / 84.4 / 85.3 % (T / S / B / L, 224²).
    unveil train mvitv2 --data labelled/ --out runs/mvitv2
The numbers are those of the configurations in PySlowFast (clips) and facebookresearch/mvit (images). The image L widens in the
perceptron there, as MViT does, and so here. The training of the clips' L (from ImageNet-21K) and of H has not been released.
There weight decay also acts on the tables of positions and the class token, here not.
"""

from typing import Literal

from unveil.data import Dense, Image, Uniform, Video, notation
from unveil.encoders import MVITV2, MViT, scales
from unveil.recipe import Recipe
from unveil.recipes.mvit import PRESETS as MVIT
from unveil.recipes.mvit import classifier

PRESETS = MVIT

STRIDE = {32: 3, 40: 3}
CROP = {"L_40x3": 312}
DROP_PATH = {"image": {"B": 0.3, "L": 0.5, "H": 0.5}, "video": {"S": 0.2, "B": 0.3, "L": 0.75}}


def mvitv2(
    size: str = "S",
    num_classes: int = 1000,
    multi_label: bool = False,
    frames: int | None = None,
    stride: int | None = None,
    sampling: Literal["dense", "uniform"] = "dense",
    crop: int | None = None,
    kv_stride: int | None = None,
    widen: Literal["attention", "mlp"] | None = None,
    drop_path: float | None = None,
    dropout: float | None = None,
    flip: bool = True,
) -> Recipe:
    """MViTv2: classify images, or clips when `frames` is given, from scratch.

    Args:
        size: T, S, B, L or H, also with its clip: S_16x4, B_32x3, L_40x3; or WIDTHxHEADSxBLOCKS of the stages: 96x1x1-2-11-2.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        frames: of a clip; images when there are none. Taken from the size or the data unless given.
        stride: between the frames of a clip, in frames of the file; 4, of 32 and 40 frames 3, unless given.
        sampling: neighbouring frames, or one from each equal part of the video.
        crop: side of the image or clip, in pixels; 224, of L_40x3 312, unless given.
        kv_stride: of keys and values in the first stage, over space; 8 for clips, 4 for images, unless given.
        widen: where the width grows; in the attention, for images of size L in the perceptron, unless given.
        drop_path: stochastic depth; the published rate of the size unless given, or 0.1.
        dropout: rate before the linear layer; 0.5 for clips, none for images, unless given.
        flip: mirror at random; turn it off where left and right mean something.
    """
    crop = crop or CROP.get(size, 224)
    size, own_frames, own_stride = notation(size)
    frames = frames or own_frames
    if frames is None:
        signal, shape = Image(), (crop, crop)
    else:
        stride = stride or own_stride or STRIDE.get(frames, 4)
        signal = Video({"dense": Dense(frames, stride), "uniform": Uniform(frames)}[sampling])
        shape = (frames, crop, crop)
    clips, large = frames is not None, size == "L"
    encoder = MViT(
        scales(size, MVITV2),
        shape,
        widen=widen or ("mlp" if large and not clips else "attention"),
        kv_stride=kv_stride or (8 if clips else 4),
        class_token=clips,
        pool="class" if clips else "mean",
        drop_path=DROP_PATH[signal.key].get(size, 0.1) if drop_path is None else drop_path,
    )
    return classifier(
        signal,
        encoder,
        num_classes=num_classes,
        multi_label=multi_label,
        crop=crop,
        dropout=dropout,
        flip=flip,
        large=large,
    )
