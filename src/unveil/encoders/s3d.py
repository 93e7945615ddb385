"""Inception with convolutions in space and time: S3D and S3D-G (Xie et al. 2018), I3D (Carreira and Zisserman 2017)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders.encoder import Encoder
from unveil.errors import UserError
from unveil.layers import he, recomputed
from unveil.layers.separable import (
    DropFirst,
    MaxPool,
    Norm,
    SelfGate,
    SpaceToDepth,
    rectified,
    scaled,
    space_then_time,
)
from unveil.masking import Mask
from unveil.tokens import Tokens


class Branches(NamedTuple):
    """Channels of an Inception block: of its point branch, of its two convolutions, of its pooled branch."""

    point: int
    middle1: int
    out1: int
    middle2: int
    out2: int
    pooled: int

    @property
    def width(self) -> int:
        return self.point + self.out1 + self.out2 + self.pooled


#: GoogLeNet's blocks (Szegedy et al. 2015, table 1), stage by stage, behind a stem of 64 and 192 channels.
STEM = (64, 192)
STAGES = (
    (Branches(64, 96, 128, 16, 32, 32), Branches(128, 128, 192, 32, 96, 64)),
    (
        Branches(192, 96, 208, 16, 48, 64),
        Branches(160, 112, 224, 24, 64, 64),
        Branches(128, 128, 256, 24, 64, 64),
        Branches(112, 144, 288, 32, 64, 64),
        Branches(256, 160, 320, 32, 128, 128),
    ),
    (Branches(256, 160, 320, 32, 128, 128), Branches(384, 192, 384, 48, 128, 128)),
)
#: What all widths are multiplied by.
WIDTHS = {"debug": 1 / 16, "nano": 1 / 4, "S": 1 / 2, "B": 1.0}
Inception = Literal["debug", "nano", "S", "B"]
Stem = Literal["cube", "flat", "blocks"]


class Mixed(nn.Module):
    """Four branches side by side: 1×1×1; two of 1×1×1 and a 3×3×3; pooling and 1×1×1.

    Args:
        channels: of the map.
        branches: channels of each branch.
        norm: see `rectified`.
        separable: the 3×3×3 as 1×3×3 and 3×1×1.
        gates: a `SelfGate` on every branch.
        down: makes the map coarser first.
    """

    def __init__(
        self, channels: int, branches: Branches, norm: Norm, separable: bool, gates: bool, down: nn.Module | None = None
    ):
        super().__init__()
        self.down = down
        b = branches

        self.point = rectified(channels, b.point, norm)
        self.conv1 = nn.Sequential(rectified(channels, b.middle1, norm), _cube(b.middle1, b.out1, norm, separable))
        self.conv2 = nn.Sequential(rectified(channels, b.middle2, norm), _cube(b.middle2, b.out2, norm, separable))
        self.pooled = nn.Sequential(MaxPool((3, 3, 3), (1, 1, 1)), rectified(channels, b.pooled, norm))
        widths = (b.point, b.out1, b.out2, b.pooled)
        self.gates = nn.ModuleList(SelfGate(width) for width in widths) if gates else None

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,T,H,W] → [B,D,T',H',W']."""
        if self.down is not None:
            x = self.down(x)
        found = [branch(x) for branch in (self.point, self.conv1, self.conv2, self.pooled)]
        if self.gates is not None:
            found = [gate(x) for gate, x in zip(self.gates, found, strict=True)]
        return torch.cat(found, dim=1)


class S3D(Encoder):
    """A clip → stem → nine Inception blocks, which halve time twice and space three times on their way → a map.

    Args:
        size: "B" is the published one; the others have its blocks with a share of its channels.
        stem: the first convolution, of stride 2: a "cube" of 7×7×7; "flat", 3×7×7; or 2×4×4 on blocks of 2×2×2 pixels
            ("blocks": space-to-depth, MIL-NCE).
        separable: cubes are taken apart, k×k×k into 1×k×k and k×1×1 (S3D); I3D's are whole.
        gates: self-gating after the stem and in every block (S3D-G).
        same: TensorFlow's padding where maps are halved; centred otherwise. See `MaxPool`.
        pairs: pool the means of neighbouring frames rather than frames, so that the first and last count half.
        eps, momentum: of the batch norms.
    """

    def __init__(
        self,
        size: Inception = "B",
        stem: Stem = "cube",
        separable: bool = True,
        gates: bool = False,
        same: bool = False,
        pairs: bool = True,
        eps: float = 1e-3,
        momentum: float = 1e-3,
    ):
        super().__init__()
        if size not in WIDTHS:
            raise UserError(f"There is no size {size!r} of Inception: use {', '.join(WIDTHS)}.")
        norm = partial(nn.BatchNorm3d, eps=eps, momentum=momentum)
        factor = WIDTHS[size]
        first, width = (scaled(channels, factor) for channels in STEM)
        parts: dict[str, nn.Module] = {
            "conv1": _first(stem, first, norm, separable),
            "pool": MaxPool((1, 3, 3), (1, 2, 2), same),
            "conv2": rectified(first, first, norm),
            "conv3": _cube(first, width, norm, separable),
        }
        if gates:
            parts["gate"] = SelfGate(width)
        self.stem = nn.Sequential(OrderedDict(parts))
        pools = (((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)))
        blocks = []
        for stage, pool in zip(STAGES, pools, strict=True):
            for number, branches in enumerate(stage):
                branches = Branches(*(scaled(channels, factor) for channels in branches))
                down = MaxPool(*pool, same) if number == 0 else None
                blocks.append(Mixed(width, branches, norm, separable, gates, down))
                width = branches.width
        self.blocks = nn.ModuleList(blocks)
        self.ends = {sum(map(len, STAGES[: place + 1])) for place in range(len(STAGES))}
        self.width, self.depth = width, len(blocks)
        self.pairs = pairs
        self.shortest = 2 if stem == "blocks" else 1
        he(self)

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        raise UserError(_NO_MASKS)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: normalised clip [B,3,T,H,W].
            mask: None; see Raises.
            layer: stop after this block (1 … 9, or -1 for the last, -2 …).

        Returns:
            tokens of the last map, [B,D,T/8,H/32,W/32]; `stages` are the maps before those that are halved.

        Raises:
            UserError: a mask is given, there is no such layer, or blocks of 2×2×2 pixels do not divide the clip.
        """
        if mask is not None:
            raise UserError(_NO_MASKS)
        if any(length % self.shortest for length in x.shape[2:]):
            raise UserError(f"A stem of blocks needs even frames, height and width, not {tuple(x.shape[2:])}.")
        stop = self._stop(layer)
        x = self.stem(x)
        stages = [x]
        for number, block in enumerate(self.blocks[:stop], 1):
            x = recomputed(block, x) if self.checkpointing else block(x)
            if number in self.ends and number < stop:
                stages.append(x)
        return Tokens.of_map(x)._replace(stages=[[Tokens.of_map(stage)] for stage in stages])

    def pool(self, tokens: Tokens) -> Tensor:
        x = tokens.map().mean((3, 4))
        if self.pairs and x.shape[2] > 1:
            x = functional.avg_pool1d(x, 2, 1)
        return x.mean(2)

    def layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        return int(rest[0]) + 1 if part == "blocks" else 0


_NO_MASKS = (
    "Inception (s3d, s3dg) sees whole clips: its convolutions have no place for what is masked. Use a transformer."
)


def _cube(channels: int, out: int, norm: Norm, separable: bool, side: int = 3, stride: int = 1) -> nn.Module:
    if separable:
        return space_then_time(channels, out, norm, side, stride)
    return rectified(channels, out, norm, (side, side, side), (stride, stride, stride))


def _first(stem: str, width: int, norm: Norm, separable: bool) -> nn.Module:
    if stem == "cube":
        return _cube(3, width, norm, separable, side=7, stride=2)
    if stem == "flat":
        return rectified(3, width, norm, (3, 7, 7), (2, 2, 2))
    if stem == "blocks":
        return nn.Sequential(SpaceToDepth(), rectified(24, width, norm, (2, 4, 4), padding=(1, 2, 2)), DropFirst())
    raise UserError(f"There is no stem {stem!r} of Inception: use cube, flat or blocks.")
