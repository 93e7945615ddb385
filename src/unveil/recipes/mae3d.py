"""MAE3D: masked autoencoders in 3D point cloud representation learning.
Jiang, Lu, Zhao, Dazeley, Wang. TMM 2023. arXiv:2207.01545

Cut a cloud of points into groups that lie close together, hide 70 % of them about one random group; embed the visible points
with a graph network, encode the groups with a transformer, and predict the centres of all groups, and a sheet of points folded
about each. Afterwards the graph network alone is fine-tuned, on whole clouds.

Published: ModelNet40 fine-tuned 93.4 % (pre-trained on ShapeNet).
    unveil pretrain mae3d --data scans/ --out runs/points
    unveil finetune runs/points --data labelled/ --out runs/points-ft
Where this differs from the release: its middle of what is hidden is one group for the whole batch, here each sample has its own;
its farthest point sampling passes over points within 0.03 of the origin, here none is; its clouds are the first points of a file,
here a random draw; its Adam adds the weight decay to the gradient, here it is AdamW. The rate is constant there and here.
"""

from functools import partial
from typing import Literal

from torch import nn

from unveil.data import Points, RandomScale
from unveil.decoders import FoldingDecoder, TransformerDecoder
from unveil.encoders import DGCNN, Dimensions, PointEncoder, Size, ViT, dimensions
from unveil.errors import UserError
from unveil.heads import PerceptronHead
from unveil.layers import Block
from unveil.losses import classification
from unveil.masking import Neighbourhood, Random
from unveil.objectives import Completion, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.tokens import Groups, PerceptronPositions

PRESETS = {
    "small": {
        "mae3d": {
            "size": "S",
            "points": 1024,
            "group": 36,
            "decoder_depth": 3,
            "schedule.epochs": 100,
            "schedule.batch": 16,
            "loader.batch": 16,
            "optimizer.lr": 5e-3,
        },
        "finetune": {
            "size": "S",
            "points": 1024,
            "schedule.epochs": 60,
            "schedule.batch": 16,
            "loader.batch": 16,
            "optimizer.lr": 8e-3,
        },
    },
}

#: The published size has heads that do not make up its width: 8 of 64 channels in 1024.
PUBLISHED, HEAD_WIDTH = Dimensions(1024, 6, 8), 64
SIZES = {"S": Dimensions(256, 6, 4), "B": PUBLISHED}


def mae3d(
    size: Size = "B",
    ratio: float = 0.7,
    masking: Literal["block", "random"] = "block",
    points: int = 2048,
    group: int = 64,
    neighbours: int = 20,
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    head_width: int | None = None,
    mlp_width: int | None = None,
    weight: float = 0.1,
) -> Recipe:
    """MAE3D: predict a whole cloud of points from 30 % of its groups.

    Args:
        size: of the encoder: B is the published one, S is smaller.
        ratio: share of groups that is hidden.
        masking: hide the groups about one of them (block), or any (random).
        points: of a cloud, drawn from the file.
        group: points of a group, a square number.
        neighbours: at which each point looks.
        decoder_width: width of the decoder's tokens; the encoder's unless given.
        decoder_depth: blocks of the decoder; as many as the encoder has unless given.
        head_width: channels of an attention head; 64 for size B, otherwise the width is divided among the heads.
        mlp_width: hidden width of the perceptrons; twice the encoder's width unless given.
        weight: of the distance of the points, beside that of the centres.
    """
    patchify = Groups(group)
    grid = patchify.grid((points,))
    _check(grid[0], ratio)
    width, depth, heads = _dimensions(size)
    decoder_width = decoder_width or width
    head_width = head_width or (HEAD_WIDTH if (width, depth, heads) == PUBLISHED else None)
    mlp_width = mlp_width or 2 * width
    block = partial(Block, head_width=head_width, norm=partial(nn.LayerNorm, eps=1e-5))
    trunk = TransformerDecoder(
        width,
        None,
        PerceptronPositions(3, decoder_width),
        width=decoder_width,
        depth=decoder_depth or depth,
        heads=heads,
        class_token="own",
        embed_bias=False,
        qkv_bias=False,
        mlp_ratio=mlp_width / decoder_width,
        every=True,
        block=block,
    )
    encoder = ViT(
        Dimensions(width, depth, heads),
        patchify,
        PerceptronPositions(3, width),
        embed=DGCNN(width, group, neighbours),
        every=True,
        norm=None,
        qkv_bias=False,
        mlp_ratio=mlp_width / width,
        block=block,
    )
    return Recipe(
        objective=Completion(
            key="points",
            encoder=encoder,
            decoder=FoldingDecoder(trunk, decoder_width, grid[0], group),
            masker=Neighbourhood(ratio) if masking == "block" else Random(ratio),
            weight=weight,
        ),
        data=Data(Points(points), transform=[RandomScale()], mean=(), std=()),
        optimizer=Optimizer(lr=8e-4, weight_decay=1e-4),
        schedule=Schedule(epochs=301, warmup=0, batch=32, min_lr=8e-4),
        loader=Loader(batch=32),
        precision="32",  # in half precision neighbours would lie in one place
    )


def finetune(
    size: Size = "B",
    num_classes: int = 40,
    multi_label: bool = False,
    points: int = 1024,
    neighbours: int = 20,
    dropout: float = 0.5,
) -> Recipe:
    """MAE3D's graph network, fine-tuned on whole clouds as published; the transformer is left behind.

    Args:
        size: of the pre-trained encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        points: of a cloud, drawn from the file.
        neighbours: at which each point looks.
        dropout: rate in the classifier.
    """
    width = _dimensions(size).width
    return Recipe(
        objective=Supervised(
            key="points",
            encoder=PointEncoder(DGCNN(width, neighbours=neighbours), width),
            head=PerceptronHead(width, num_classes, dropout=dropout),
            # Published: 0.2 spread over the other classes; here over all.
            loss=classification(multi_label, smoothing=min(1.0, 0.2 * num_classes / max(1, num_classes - 1))),
        ),
        data=Data(Points(points), transform=[RandomScale()], mean=(), std=()),
        optimizer=Optimizer(lr=8e-4, weight_decay=1e-4),
        schedule=Schedule(epochs=251, warmup=0, batch=32, min_lr=8e-4),
        loader=Loader(batch=32),
        precision="32",  # in half precision neighbours would lie in one place
    )


def _dimensions(size: Size) -> Dimensions:
    return SIZES[size] if size in SIZES else dimensions(size)


def _check(groups: int, ratio: float) -> None:
    if not int(groups * ratio):
        raise UserError(f"--ratio {ratio}: of {groups} groups of points none would be hidden; choose more --points.")
