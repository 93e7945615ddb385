"""The head of convolutional networks, which also reads maps larger than those it learned on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from unveil.layers import Dropout
from unveil.tokens import Tokens

AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class ConvolutionalHead(nn.Module):
    """Mean, dropout, linear; on a larger map in evaluation the mean of the answers at all places (Non-local, section 4.1).

    Args:
        width: of the encoder.
        num_classes: outputs.
        window: grid of the maps in training. Evaluated on a larger map, it answers for every window of that size, one
            place apart, and gives the logarithm of the mean probability. None takes the mean of any map.
        dropout: rate before the last layer.
        hidden: of a linear layer, rectified, before the last (X3D); None for none.
        multi_label: probabilities are of each class by itself.
        std: of the initial weights.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        window: Sequence[int] | None = None,
        dropout: float = 0.0,
        hidden: int | None = None,
        multi_label: bool = False,
        std: float = 0.01,
    ):
        super().__init__()
        self.window = None if window is None else tuple(window)
        self.multi_label = multi_label
        self.hidden = None if hidden is None else nn.Linear(width, hidden, bias=False)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(hidden or width, num_classes)
        if self.hidden is not None:
            nn.init.kaiming_normal_(self.hidden.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def extra_repr(self) -> str:
        return f"window={self.window}"

    def forward(self, tokens: Tokens, pool: Callable[[Tokens], Tensor]) -> Tensor:
        """Tokens and the encoder's `pool` → logits [B, num_classes]."""
        if self.training or self.window is None or self._fits(tokens.grid, self.window):
            return self._logits(pool(tokens))
        window = [min(size, extent) for size, extent in zip(tokens.grid, self.window, strict=True)]
        means = AVERAGE[len(window)](tokens.map(), window, stride=1)
        logits = self._logits(means.flatten(2).transpose(1, 2))
        if self.multi_label:
            return logits.sigmoid().mean(1).logit(eps=1e-7)
        return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])

    @staticmethod
    def _fits(grid: Sequence[int], window: Sequence[int]) -> bool:
        return all(size <= extent for size, extent in zip(grid, window, strict=True))

    def _logits(self, features: Tensor) -> Tensor:
        """Features [B, …, width] → [B, …, num_classes]."""
        if self.hidden is not None:
            features = self.hidden(features).relu()
        return self.linear(self.dropout(features))
