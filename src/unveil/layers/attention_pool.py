"""Pooling by attention from the mean (Radford et al. 2021, CLIP's ResNets)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError
from unveil.layers.attention import attend
from unveil.tokens import Positions, Tokens


class AttentionPool(nn.Module):
    """The mean of a map's tokens asks all of them and itself: tokens → [B, width].

    Its result is not projected here, but by what follows.

    Args:
        width: of the tokens.
        heads: of the attention; must divide the width.
        grid: the map's native one.
    """

    def __init__(self, width: int, heads: int, grid: Sequence[int]):
        super().__init__()
        if width % heads:
            raise UserError(f"{heads} attention heads do not divide a width of {width}: choose other ones.")
        self.heads = heads
        self.positions = Positions(grid, width, "learned")
        self.position_of_mean = nn.Parameter(torch.empty(1, 1, width))
        self.qkv = nn.Linear(width, 3 * width)
        nn.init.normal_(self.positions.table, std=width**-0.5)
        nn.init.normal_(self.position_of_mean, std=width**-0.5)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.zeros_(self.qkv.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        placed = tokens.x + self.positions(tokens.coords, tokens.grid)
        mean = tokens.mean()[:, None] + self.position_of_mean
        width = placed.shape[-1]
        q = functional.linear(mean, self.qkv.weight[:width], self.qkv.bias[:width])
        kv = functional.linear(torch.cat([mean, placed], 1), self.qkv.weight[width:], self.qkv.bias[width:])
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, *kv.chunk(2, dim=-1)))
        return attend(q, k, v)[:, 0]
