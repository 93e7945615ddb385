"""A linear layer, for encoders that put a mask token in place (BEiT, MaskFeat, SimMIM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unveil.tokens import Tokens, ravel


class LinearDecoder(nn.Module):
    """Reads the features at the places asked for off the whole grid, through one linear layer.

    Args:
        in_width: of the encoder's tokens.
        out_width: values predicted for each token.
    """

    head_apart = True  # takes `read=False`, and `head` reads the predictions off what it then gives

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.head = nn.Linear(in_width, out_width)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tokens, coords: Tensor, read: bool = True) -> Tensor:
        """Tokens of the whole grid, in order, and coords [B, Nq, K] → [B, Nq, P]; unless `read`, the features [B, Nq, in_width].

        Raises:
            ValueError: tokens are missing from the grid.
        """
        if tokens.x.shape[1] != torch.Size(tokens.grid).numel():
            raise ValueError('a linear decoder needs every token: the encoder must have masked="replace"')
        features = tokens.gather(ravel(coords, tokens.grid)).x
        return self.head(features) if read else features
