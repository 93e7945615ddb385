"""One linear layer on the pooled features."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from unveil.layers import Dropout
from unveil.tokens import Tokens


class LinearHead(nn.Module):
    """Pool, dropout, linear.

    Args:
        width: of the encoder.
        num_classes: outputs.
        dropout: rate before the linear layer.
        std: of the initial weights (MAE's fine-tuning begins at 2e-5: nearly zero logits).
    """

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0, std: float = 0.02):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tokens, pool: Callable[[Tokens], Tensor]) -> Tensor:
        """Tokens and the encoder's `pool` → logits [B, num_classes]."""
        return self.linear(self.dropout(pool(tokens)))
