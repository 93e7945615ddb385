"""The pre-norm transformer block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unveil.layers.attention import Attention, QkvBias
from unveil.layers.dropout import DropPath
from unveil.layers.mlp import Mlp
from unveil.layers.recompute import recomputed

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, CaiT)."""

    def __init__(self, width: int, value: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (Dosovitskiy et al. 2021).

    Args:
        width, heads: of the attention.
        mlp_ratio: hidden width of the perceptron, in widths.
        qkv_bias: see `Attention`.
        drop_path: rate of stochastic depth.
        layer_scale: initial value of a learned factor on both branches; None for none.
        norm: width → norm.
        act: of the perceptron.
        head_width: see `Attention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: QkvBias = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        norm: Callable[[int], nn.Module] = LayerNorm,
        act: Callable[[], nn.Module] = nn.GELU,
        head_width: int | None = None,
    ):
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, qkv_bias, head_width=head_width)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), act=act)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        # One for each branch: a dropout draws the same again when it is called again.
        self.drop_path1 = DropPath(drop_path)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None = None, last: int | None = None) -> Tensor:
        """Tokens [B, N, D] → [B, N, D]; `mask` as in `Attention`.

        With `last`, that many of the last tokens [B, last, D]: they attend to all, and nothing is computed for the others.
        """
        normed = self.norm1(x)
        if last is None or last == x.shape[1]:
            x = x + self.drop_path1(self.scale1(self.attn(normed, mask=mask)))
        else:
            mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., -last:, :]
            x = x[:, -last:] + self.drop_path1(self.scale1(self.attn(normed[:, -last:], normed, mask)))
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))


def run_blocks(
    blocks: Iterable[nn.Module], x: Tensor, *context: Any, recompute: bool = False, last: int | None = None
) -> Tensor:
    """Pass tokens or a map through blocks; with `recompute` keep no activations inside them for the backward pass.

    Args:
        blocks: `(x, *context) → x`.
        x: tokens [B, N, D], or a map.
        context: what each block is given besides.
        recompute: compute activations again instead of keeping them.
        last: how many of the last tokens are wanted; the last block, which then has to be a `Block`, computes no others.
    """
    recompute = recompute and torch.is_grad_enabled()
    blocks = list(blocks)
    for number, block in enumerate(blocks, start=1):
        given = context if last is None or number < len(blocks) else (*context, last)
        x = recomputed(block, x, *given) if recompute else block(x, *given)
    return x
