"""A perceptron over the largest and the mean value of the tokens, as clouds of points are classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unveil.layers import Dropout
from unveil.tokens import Tokens


class PerceptronHead(nn.Module):
    """Maximum and mean side by side, then linear layers with batch norms between them (Wang et al. 2019, DGCNN).

    Args:
        width: of the encoder.
        num_classes: outputs.
        hidden: widths of the layers between.
        dropout: rate after each of them.
        slope: of the rectifier on the negative side.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.5,
        slope: float = 0.2,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        before = 2 * width
        for number, after in enumerate(hidden):
            # The first without a bias, as published; the norm makes the others' useless too.
            layers += [nn.Linear(before, after, bias=number > 0), nn.BatchNorm1d(after), nn.LeakyReLU(slope)]
            layers.append(Dropout(dropout))
            before = after
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(before, num_classes)

    def forward(self, tokens: Tokens, pool: Callable[[Tokens], Tensor] | None = None) -> Tensor:
        """Tokens → logits [B, num_classes]. It pools by itself, so `pool` is not called."""
        x = tokens.x
        if tokens.valid is not None:
            x = x.masked_fill(~tokens.valid[..., None], float("-inf"))
        return self.linear(self.layers(torch.cat([x.max(dim=1).values, tokens.mean()], dim=1)))
