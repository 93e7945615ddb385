"""Pooling attention (Fan et al. 2021, MViT), with decomposed relative positions and residual pooling (Li et al. 2022, MViTv2).

A sequence is the places of a grid in row-major order behind any number of class tokens, which nothing here pools or places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.layers.attention import Attention, attend
from unveil.layers.block import LayerNorm
from unveil.layers.convolution import convolution
from unveil.layers.dropout import DropPath
from unveil.layers.mlp import Mlp
from unveil.layers.relative import Grid, RelativePositions, bias_of, channels_of

MAX_POOLS: dict[int, Any] = {2: functional.max_pool2d, 3: functional.max_pool3d}
#: Devices with attention kernels that never make the matrix of all pairs, and so take relative positions as channels.
FUSED = ("cpu", "cuda")


def reduced(grid: Sequence[int], stride: Sequence[int]) -> Grid:
    """The grid that pooling leaves: every `stride`-th place along each axis, the first one first."""
    return tuple(-(-size // step) for size, step in zip(grid, stride, strict=True))


def over_grid(function: Callable[[Tensor], Tensor], x: Tensor, grid: Grid) -> Tensor:
    """Apply a function of maps to the places of a sequence [..., M + N, C]; its first M tokens stay as they are.

    The map [B', C, *grid] is a view of the sequence, so channels lie next to each other in memory (channels last): what
    convolutions and pooling are fast at, and nothing has to be copied to and fro.
    """
    prefix = x.shape[-2] - math.prod(grid)
    channels = x.shape[-1]
    maps = x[..., prefix:, :].reshape(-1, *grid, channels).movedim(-1, 1)
    pooled = function(maps).flatten(2).transpose(1, 2).unflatten(0, x.shape[:-2])
    return torch.cat([x[..., :prefix, :], pooled], dim=-2) if prefix else pooled


class Pool(nn.Module):
    """A convolution of each channel by itself, the same for all heads, and a norm.

    Args:
        width: of a head.
        kernel, stride: along each axis; kernels are odd.
    """

    def __init__(self, width: int, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.conv: Any = convolution(width, width, kernel, stride, groups=width)
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, heads, M + N, d] → [B, heads, M + N', d]; the class tokens are only normalised."""
        return self.norm(over_grid(self.conv, x, grid))

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Inflate a kernel with fewer axes (an image's, for a clip) in place; returns the names of what was changed.

        It becomes the middle of a kernel of zeros, so that a clip whose frames are pooled as images gives the images' numbers.
        """
        name, own = f"{prefix}conv.weight", self.conv.weight
        weight = state.get(name)
        if weight is None or weight.ndim >= own.ndim or weight.shape[2:] != own.shape[own.ndim - weight.ndim + 2 :]:
            return []
        inflated = torch.zeros_like(own, dtype=weight.dtype, device=weight.device)
        inflated[(slice(None), slice(None), *(side // 2 for side in own.shape[2 : own.ndim - weight.ndim + 2]))] = (
            weight
        )
        state[name] = inflated
        return [name]


class PoolingAttention(Attention):
    """Self-attention between pooled queries and pooled keys and values.

    Args:
        width, heads, out: see `Attention`.
        q_stride: of the queries' pooling, along each axis of the grid; None for no pooling.
        kv_stride: of the keys' and values' pooling.
        kernel: of all poolings, along each axis; 0 for one more than the stride, and none where nothing is pooled.
        relative: sizes of relative positions, see there; None for none.
        residual: add the pooled queries to the result (MViTv2, eq. 3).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        out: int | None = None,
        *,
        q_stride: Sequence[int] | None,
        kv_stride: Sequence[int],
        kernel: int = 3,
        relative: Sequence[int] | None = None,
        residual: bool = False,
    ):
        super().__init__(width, heads, out=out)
        head = self.proj.in_features // heads
        self.kv_stride = tuple(kv_stride)
        self.pool_q = None if q_stride is None else _pool(head, kernel, q_stride)
        self.q_stride = tuple(1 for _ in kv_stride) if q_stride is None else tuple(q_stride)
        self.pool_k = _pool(head, kernel, kv_stride)
        self.pool_v = _pool(head, kernel, kv_stride)
        self.positions = None if relative is None else RelativePositions(relative, head)
        self.residual = residual

    def forward(self, x: Tensor, grid: Grid) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sequence [B, M + N, width] on `grid` → [B, M + N', out] on `reduced(grid, q_stride)`."""
        q, k, v = self.projected(x)
        q = q if self.pool_q is None else self.pool_q(q, grid)
        k = k if self.pool_k is None else self.pool_k(k, grid)
        v = v if self.pool_v is None else self.pool_v(v, grid)
        prefix = x.shape[1] - math.prod(grid)
        if self.positions is None:
            y = attend(q, k, v)
        else:
            terms = self.positions(q, reduced(grid, self.q_stride), reduced(grid, self.kv_stride))
            if q.device.type in FUSED:
                more, pick = channels_of(terms, prefix)
                head, scale = q.shape[-1], q.shape[-1] ** -0.5
                longer = torch.cat([q * scale, more], dim=-1)
                keys = torch.cat([k, pick.expand(*k.shape[:2], -1, -1)], dim=-1)
                values = functional.pad(v, (0, pick.shape[-1]))  # the kernels want them as wide as keys
                y = attend(longer, keys, values, scale=1.0).unflatten(-1, (self.heads, -1))[..., :head].flatten(2)
            else:
                y = attend(q, k, v, bias_of(terms, prefix))
        if self.residual:
            added = functional.pad(q[:, :, prefix:], (0, 0, prefix, 0)) if prefix else q
            y = y + added.transpose(1, 2).flatten(2)
        return self.proj(y)


def _pool(width: int, kernel: int, stride: Sequence[int]) -> Pool | None:
    sides = [kernel or (step + 1 if step > 1 else 1) for step in stride]
    return Pool(width, sides, stride) if max(*sides, *stride) > 1 else None


class PoolingBlock(nn.Module):
    """A transformer's block that may shrink the grid and widen the tokens.

    Args:
        width, out: before and after.
        heads: of the attention.
        q_stride: of the queries and of the shortcut, along each axis of the grid.
        kv_stride: of keys and values.
        pool_queries: pool them also where their stride is one.
        kernel: see `PoolingAttention`.
        widen: where the width grows: in the perceptron (MViT) or in the attention (MViTv2).
        relative, residual: see `PoolingAttention`.
        mlp_ratio: hidden width of the perceptron, in its own input's width.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        width: int,
        out: int,
        heads: int,
        *,
        q_stride: Sequence[int],
        kv_stride: Sequence[int],
        pool_queries: bool = False,
        kernel: int = 3,
        widen: Literal["mlp", "attention"] = "mlp",
        relative: Sequence[int] | None = None,
        residual: bool = False,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.q_stride = tuple(q_stride)
        self.shrinks = any(step > 1 for step in q_stride)
        self.widen = widen
        middle = out if widen == "attention" else width
        self.norm1 = LayerNorm(width)
        self.attn = PoolingAttention(
            width,
            heads,
            middle,
            q_stride=q_stride if pool_queries or self.shrinks else None,
            kv_stride=kv_stride,
            kernel=kernel,
            relative=relative,
            residual=residual,
        )
        self.norm2 = LayerNorm(middle)
        self.mlp = Mlp(middle, int(middle * mlp_ratio), out)
        self.proj = nn.Linear(width, out) if width != out else None
        # One for each branch: a dropout draws the same again when it is called again.
        self.drop_path1 = DropPath(drop_path)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Sequence [B, M + N, width] on `grid` → [B, M + N', out] on `reduced(grid, q_stride)`.

        At a change of width the shortcut is a linear map of what was normalised, as in both papers' code.
        """
        normed = self.norm1(x)
        shortcut = x if self.proj is None or self.widen == "mlp" else self.proj(normed)
        if self.shrinks:
            shortcut = over_grid(self._largest, shortcut, grid)
        x = shortcut + self.drop_path1(self.attn(normed, grid))
        normed = self.norm2(x)
        shortcut = x if self.proj is None or self.widen == "attention" else self.proj(normed)
        return shortcut + self.drop_path2(self.mlp(normed))

    def _largest(self, maps: Tensor) -> Tensor:
        kernel = [step + 1 if step > 1 else 1 for step in self.q_stride]
        return MAX_POOLS[len(kernel)](maps, kernel, self.q_stride, [side // 2 for side in kernel])
