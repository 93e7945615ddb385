"""A decoder whose tokens attend to their neighbours alone, for signals that are local: sound in time and frequency (Audio-MAE)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unveil.layers import LayerNorm, WindowBlock, Windows, run_blocks, xavier
from unveil.tokens import Tokens, coordinates, ravel


class WindowDecoder(nn.Module):
    """Put the embedded visible tokens in their places and a mask token in all others, attend within windows, read off what is asked.

    Every second block shifts its windows (Huang et al. 2022, section 3). Class tokens are dropped: they have no place.

    Args:
        in_width: of the encoder's tokens.
        out_width: values predicted for each token.
        positions: `(coords, grid) → [B, N, width]`.
        width, depth, heads: of the decoder.
        window: places of a window along each axis of the grid.
        shift: of the windows of every second block.
        mlp_ratio: hidden width of the perceptrons, in widths.
    """

    head_apart = True  # takes `read=False`, and `head` reads the predictions off what it then gives

    def __init__(
        self,
        in_width: int,
        out_width: int,
        positions: nn.Module,
        *,
        width: int,
        depth: int,
        heads: int,
        window: Sequence[int] = (4, 4),
        shift: Sequence[int] = (2, 0),
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        self.checkpointing = False
        self.window = tuple(window)
        self.shift = tuple(shift)
        self.embed = nn.Linear(in_width, width)
        self.positions = positions
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(WindowBlock(width, heads, len(self.window), mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, out_width)
        xavier(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}"

    def forward(self, tokens: Tokens, coords: Tensor, read: bool = True) -> Tensor:
        """
        Args:
            tokens: the encoder's, x [B, Nv, in_width], on a grid of as many axes as windows have.
            coords: places to predict [B, Nq, K], on the same grid.
            read: otherwise the features that `head` would read the predictions off, [B, Nq, width].

        Returns:
            predictions [B, Nq, out_width].

        Raises:
            ValueError: some tokens are padding, whose places nothing could stand in.
        """
        if tokens.valid is not None:
            raise ValueError("a decoder of windows takes whole grids: none of its tokens may be padding")
        grid, visible = tokens.grid, self.embed(tokens.x)
        where = ravel(tokens.coords, grid)[..., None].expand_as(visible)
        hidden = self.mask_token.to(visible.dtype).expand(visible.shape[0], math.prod(grid), -1)
        x = hidden.scatter(1, where, visible) + self.positions(coordinates(grid, visible.device)[None], grid)
        shifts = [(0,) * len(grid), self.shift]
        windows = [Windows.over(grid, self.window, shift, visible.device) for shift in shifts]
        for number, block in enumerate(self.blocks):
            x = run_blocks([block], x, windows[number % 2], recompute=self.checkpointing)
        asked = ravel(coords, grid)[..., None].expand(-1, -1, x.shape[-1])
        features = self.norm(x.gather(1, asked))
        return self.head(features) if read else features
