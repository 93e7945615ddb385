"""A learned query looks at all tokens: the attentive probe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unveil.layers import Attention, LayerNorm, Mlp, xavier
from unveil.tokens import Tokens


class AttentiveHead(nn.Module):
    """One cross-attention block with a learned query, then a linear layer (V-JEPA, Bardes et al. 2024, §4).

    Args:
        width: of the encoder.
        num_classes: outputs.
        heads: of the cross-attention.
        mlp_ratio: hidden width of the perceptron, in widths.
    """

    def __init__(self, width: int, num_classes: int, heads: int = 12, mlp_ratio: float = 4.0):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.linear = nn.Linear(width, num_classes)
        xavier(self)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, tokens: Tokens, pool: Callable[[Tokens], Tensor] | None = None) -> Tensor:
        """Tokens → logits [B, num_classes]. It pools by itself, so `pool` is not called."""
        context = self.norm1(tokens.sequence())
        query = self.query.expand(context.shape[0], -1, -1)  # len(…) would fix an export's batch
        query = query + self.attn(query, context=context, mask=tokens.attention_mask())
        query = query + self.mlp(self.norm2(query))
        return self.linear(query[:, 0])
