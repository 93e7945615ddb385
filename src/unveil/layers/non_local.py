"""The non-local block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.layers.convolution import CONVOLUTIONS, MAX_POOLS
from unveil.layers.norms import Norm, silence

#: How similar two places are, section 3.2 of the paper: "gaussian" softmax(xᵢ·xⱼ), "embedded" softmax(θᵢ·φⱼ), "dot"
#: θᵢ·φⱼ / N, "concatenation" relu(w·[θᵢ, φⱼ]) / N.
Similarity = Literal["gaussian", "embedded", "dot", "concatenation"]


class NonLocal(nn.Module):
    """x + norm(out(Σⱼ f(xᵢ, xⱼ) g(xⱼ))): each place sees all others (Wang et al. 2018).

    Args:
        width: of the map.
        similarity: see `Similarity`. The two with a softmax are scaled by 1/√width, as released.
        pool: of the places that are looked at: largest of each such window; None for all places.
        norm: before the sum; its factors begin at zero, so that the block begins as the identity.
        axes: of the map.
    """

    def __init__(
        self, width: int, similarity: Similarity, norm: Norm, pool: Sequence[int] | None = (1, 2, 2), axes: int = 3
    ):
        super().__init__()
        conv, inner = CONVOLUTIONS[axes], max(1, width // 2)
        self.similarity = similarity
        self.pool = nn.Identity() if pool is None else MAX_POOLS[axes](tuple(pool))
        if similarity != "gaussian":
            self.theta = conv(width, inner, 1)
            self.phi = conv(width, inner, 1)
        if similarity == "concatenation":
            self.weigh = nn.Linear(2 * inner, 1, bias=False)
        self.g = conv(width, inner, 1)
        self.out = conv(inner, width, 1)
        self.norm = silence(norm(width))

    def extra_repr(self) -> str:
        return self.similarity

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, *S] → [B, C, *S]."""
        seen = self.pool(x)
        queries, keys = (x, seen) if self.similarity == "gaussian" else (self.theta(x), self.phi(seen))
        queries, keys, values = (map.flatten(2).transpose(1, 2) for map in (queries, keys, self.g(seen)))
        found = self._gathered(queries, keys, values).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.norm(self.out(found))

    def _gathered(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Σⱼ f(xᵢ, xⱼ) g(xⱼ): [B, N, C], [B, M, C], [B, M, D] → [B, N, D]."""
        if self.similarity in ("gaussian", "embedded"):
            scale = 1 / math.sqrt(queries.shape[-1])
            return functional.scaled_dot_product_attention(queries, keys, values, scale=scale)
        if self.similarity == "dot":
            return torch.bmm(torch.bmm(queries, keys.transpose(1, 2)) / keys.shape[1], values)
        of_queries, of_keys = self.weigh.weight.chunk(2, dim=1)  # w·[θ, φ] is a sum of two
        pairs = (functional.linear(queries, of_queries) + functional.linear(keys, of_keys).transpose(1, 2)).relu()
        return torch.bmm(pairs / keys.shape[1], values)
