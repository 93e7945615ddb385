"""The multiscale vision transformer, of images and clips (Fan et al. 2021, MViT; Li et al. 2022, MViTv2)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder, hide
from unveil.errors import UserError
from unveil.layers import LayerNorm, PoolingBlock, run_blocks
from unveil.layers.convolution import CONVOLUTIONS
from unveil.layers.pooling import reduced
from unveil.masking import Mask
from unveil.tokens import Tokens, coordinates, refine


class Scales(NamedTuple):
    """Width and heads of the first stage, both doubled by each further one, and the blocks of every stage."""

    width: int
    heads: int
    depths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.width}x{self.heads}x{'-'.join(map(str, self.depths))}"


_TINY = {"debug": Scales(16, 1, (1, 1)), "nano": Scales(32, 1, (1, 1, 2, 1))}
#: MViT's sizes. B24 is the paper's MViT-B-24.
MVIT: dict[str, Scales] = {**_TINY, "B": Scales(96, 1, (1, 2, 11, 2)), "B24": Scales(96, 1, (2, 3, 16, 3))}
#: MViTv2's: its S has the blocks of MViT-B.
MVITV2: dict[str, Scales] = {
    **_TINY,
    "T": Scales(96, 1, (1, 2, 5, 2)),
    "S": Scales(96, 1, (1, 2, 11, 2)),
    "B": Scales(96, 1, (2, 3, 16, 3)),
    "L": Scales(144, 2, (2, 6, 36, 4)),
    "H": Scales(192, 3, (4, 8, 60, 8)),
}


def scales(size: str, named: dict[str, Scales]) -> Scales:
    """A size by its name in `named`, or by its numbers, WIDTHxHEADSxBLOCKS of the stages: "96x1x1-2-11-2".

    Raises:
        UserError: no such size, or heads that do not divide the width.
    """
    if size in named:
        return named[size]
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*(?:-[1-9]\d*)*)", size)
    if numbers is None:
        raise UserError(f"There is no size {size!r}: use {', '.join(named)}, or numbers, such as 96x1x1-2-11-2.")
    found = Scales(int(numbers[1]), int(numbers[2]), tuple(map(int, numbers[3].split("-"))))
    if found.width % found.heads:
        raise UserError(f"A size of {size} cannot be: {found.heads} heads do not divide a width of {found.width}.")
    return found


def _space(axes: int, step: int) -> tuple[int, ...]:
    """A stride over space alone: its two axes are the last."""
    return (1,) * (axes - 2) + (step, step)


class Stem(nn.Module):
    """Overlapping patches: a convolution of 7² pixels every 4, over 3 frames every 2."""

    def __init__(self, axes: int, channels: int, width: int):
        super().__init__()
        self.kernel = (3,) * (axes - 2) + (7, 7)
        self.stride = (2,) * (axes - 2) + (4, 4)
        padding = tuple(side // 2 for side in self.kernel)
        self.conv = CONVOLUTIONS[axes](channels, width, self.kernel, self.stride, padding)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The grid of a signal of this shape (its last axes are looked at)."""
        return reduced(tuple(shape)[-len(self.stride) :], self.stride)

    def forward(self, x: Tensor) -> Tokens:
        """[B, C, *S] → tokens [B, N, width]."""
        return Tokens.of_map(self.conv(x))

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Inflate an image's kernel for clips in place: repeated along time, divided by its length (Carreira 2017, I3D)."""
        name, own = f"{prefix}conv.weight", self.conv.weight
        weight = state.get(name)
        if weight is None or weight.ndim + 1 != own.ndim or weight.shape[2:] != own.shape[3:]:
            return []
        state[name] = weight[:, :, None].repeat(1, 1, own.shape[2], 1, 1) / own.shape[2]
        return [name]


class MViT(Encoder):
    """Patches → blocks whose grid shrinks and whose width grows from stage to stage → tokens.

    Signals of other sizes than the native one interpolate positions, absolute and relative, at every call.

    Args:
        size: width, heads and blocks.
        shape: native sizes of the signal: (height, width) or (frames, height, width).
        positions: added after the stem, on its grid `MViT.grid(shape)`: `(coords, grid) → [B, N, width of the first stage]`;
            None for none.
        relative: relative positions in every block.
        residual: add pooled queries to the result of attention.
        pool_queries: pool queries also where their grid does not shrink.
        kernel: of poolings, see `PoolingAttention`.
        widen: see `PoolingBlock`.
        kv_stride: of keys and values over space in the first stage; each step of the queries divides it.
        strides: over space, from each stage to the next.
        class_token: put a learned token in front.
        pool: how tokens become one vector: "mean" over them, or the "class" token.
        norm: the last LayerNorm acts on "tokens", or on what is "pooled" (MaskFeat's fine-tuning; it is a norm of its own,
            not the one learned in pre-training).
        masked: "replace" puts a learned token in the place of what is masked, on the stem's grid; None takes no masks.
        mask_stride: places of the stem's grid, along height and width, that are masked together; as many as make a place of
            the output unless given.
        drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
        channels: of the signal.
    """

    def __init__(
        self,
        size: Scales,
        shape: Sequence[int],
        positions: nn.Module | None = None,
        *,
        relative: bool = True,
        residual: bool = True,
        pool_queries: bool = True,
        kernel: int = 3,
        widen: Literal["mlp", "attention"] = "attention",
        kv_stride: int = 8,
        strides: Sequence[int] | None = None,
        class_token: bool = True,
        pool: Literal["mean", "class"] = "class",
        norm: Literal["tokens", "pooled"] = "tokens",
        masked: Literal["replace"] | None = None,
        mask_stride: int | None = None,
        drop_path: float = 0.0,
        channels: int = 3,
    ):
        super().__init__()
        if pool == "class" and not class_token:
            raise ValueError('pool="class" needs a class token')
        width, heads, depths = size
        axes = len(shape)
        self.depth = sum(depths)
        self.pooling = pool
        self.masked = masked
        strides = (2,) * (len(depths) - 1) if strides is None else tuple(strides)
        self.mask_stride = math.prod(strides) if mask_stride is None else mask_stride
        self.stem = Stem(axes, channels, width)
        self.positions = positions
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.mask_token = nn.Parameter(torch.empty(1, 1, width)) if masked == "replace" else None
        grid = self.stem.grid(shape)
        blocks: list[PoolingBlock] = []
        for stage, depth in enumerate(depths):
            for first, last in ((i == 0, i == depth - 1) for i in range(depth)):
                step = strides[stage - 1] if stage and first else 1
                kv_stride = max(kv_stride // step, 1)
                wider = (stage > 0 and first) if widen == "attention" else (last and stage < len(depths) - 1)
                q_stride, kv = _space(axes, step), _space(axes, kv_stride)
                # Tables have the published lengths: sizes that a stride does not divide are rounded down, not up as by pooling.
                queries, keys = ([max(1, n // s) for n, s in zip(grid, by, strict=True)] for by in (q_stride, kv))
                blocks.append(
                    PoolingBlock(
                        width,
                        width * (2 if wider else 1),
                        heads * 2**stage,
                        q_stride=q_stride,
                        kv_stride=kv,
                        pool_queries=pool_queries,
                        kernel=kernel,
                        widen=widen,
                        relative=[max(pair) for pair in zip(queries, keys, strict=True)] if relative else None,
                        residual=residual,
                        drop_path=drop_path * len(blocks) / max(1, self.depth - 1),
                    )
                )
                width, grid = width * (2 if wider else 1), tuple(queries)
        self.blocks = nn.ModuleList(blocks)
        self.steps = [block.q_stride for block in blocks]
        self.ends = [sum(depths[: stage + 1]) for stage in range(len(depths))]
        self.width = width
        self.norm = LayerNorm(width) if norm == "tokens" else None
        self.fc_norm = LayerNorm(width) if norm == "pooled" else None
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        for token in (self.class_token, self.mask_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)

    def extra_repr(self) -> str:
        return f"pool={self.pooling!r}, masked={self.masked!r}"

    @staticmethod
    def grid(shape: Sequence[int]) -> tuple[int, ...]:
        """The stem's grid of a signal of this shape: what absolute positions are made for."""
        return reduced(shape, (2,) * (len(shape) - 2) + (4, 4))

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """The grid on which masks of this signal are drawn.

        Raises:
            UserError: it does not divide the stem's.
        """
        grid = self.stem.grid(x.shape)
        if any(side % self.mask_stride for side in grid[-2:]):
            raise UserError(
                f"Masks of {4 * self.mask_stride} pixels do not divide a signal of {' × '.join(map(str, x.shape[-2:]))}: "
                f"choose a --crop that is a multiple of {4 * self.mask_stride}."
            )
        return reduced(grid, _space(len(grid), self.mask_stride))

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: normalised signal [B, C, *S].
            mask: what may be seen; everything when None.
            layer: stop after this block (1 … depth, or -1 for the last, -2 …), without the norm; None runs all of it.

        Returns:
            tokens with x [B, N, D] on the grid of the last stage run; those of the stages before it in `stages`.

        Raises:
            UserError: there is no such layer; a mask, where there is no mask token.
        """
        tokens = self.stem(x)
        if mask is not None:
            if self.mask_token is None:
                raise UserError("This multiscale transformer was built without a mask token: it cannot hide anything.")
            tokens = tokens._replace(
                x=hide(tokens.x, refine(mask.masked, self.mask_grid(x), tokens.grid), self.mask_token)
            )
        if self.positions is not None:
            tokens = tokens._replace(x=tokens.x + self.positions(tokens.coords, tokens.grid))
        if self.class_token is not None:
            tokens = tokens._replace(prefix=self.class_token.to(tokens.x.dtype).expand(x.shape[0], -1, -1))
        sequence, stages = tokens.sequence(), []
        stop = self._stop(layer)
        for number, block in enumerate(self.blocks[:stop], start=1):
            sequence = run_blocks([block], sequence, tokens.grid, recompute=self.checkpointing)
            grid = reduced(tokens.grid, self.steps[number - 1])
            if grid != tokens.grid:
                coords = coordinates(grid, x.device).expand(x.shape[0], -1, -1)
                tokens = tokens._replace(grid=grid, coords=coords)
            if number in self.ends and number < stop:
                stages.append((tokens.split(sequence),))
        if layer is None and self.norm is not None:
            sequence = self.norm(sequence)
        return tokens.split(sequence)._replace(stages=stages)

    def pool(self, tokens: Tokens) -> Tensor:
        """Tokens → one vector for each sample [B, D]."""
        if self.pooling == "class" and tokens.prefix is not None:
            pooled = tokens.prefix[:, 0]
        else:
            pooled = tokens.mean()
        # An early stage is narrower, and no norm has been learned for it.
        return pooled if self.fc_norm is None or pooled.shape[-1] != self.width else self.fc_norm(pooled)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name here: 0 embedding, 1 … depth blocks, depth + 1 after them."""
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.depth + 1 if part in ("norm", "fc_norm") else 0
