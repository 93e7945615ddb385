"""Decoders of several streams: one for each, or one network for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from unveil.decoders.transformer import TransformerDecoder
from unveil.layers import Block, LayerNorm, run_blocks, xavier
from unveil.tokens import Tokens


class SeparateDecoders(nn.Module):
    """A decoder of its own for each stream: `(stream, tokens, coords) → predictions`.

    Args:
        decoders: by the streams' keys.
    """

    def __init__(self, decoders: Mapping[str, nn.Module]):
        super().__init__()
        self.decoders = nn.ModuleDict(decoders)

    def forward(self, stream: str, tokens: Tokens, coords: Tensor) -> Tensor:
        """Tokens of one stream and places [B, Nq, K] on its grid → [B, Nq, P]."""
        return self.decoders[stream](tokens, coords)


class SharedDecoder(nn.Module):
    """The same blocks and norm decode every stream, each by itself (Georgescu et al. 2023, "same_decoder").

    What differs between streams is theirs: the linear embedding, the mask token, positions and the last linear layer.

    Args:
        ends: of each stream, by its key; made with `shared=True`.
        width, depth, heads: of the blocks.
        mlp_ratio: hidden width of the perceptrons, in widths.
        block: makes a block; called as `Block` is.
    """

    def __init__(
        self,
        ends: Mapping[str, TransformerDecoder],
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        block: Callable[..., nn.Module] = Block,
    ):
        super().__init__()
        self.checkpointing = False
        self.blocks = nn.ModuleList(block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)
        xavier(self)
        self.ends = nn.ModuleDict(ends)  # after the initialisation: they have theirs

    def forward(self, stream: str, tokens: Tokens, coords: Tensor) -> Tensor:
        """Tokens of one stream and places [B, Nq, K] on its grid → [B, Nq, P]."""
        return self.ends[stream](tokens, coords, through=self._through)

    def _through(self, sequence: Tensor, mask: Tensor | None, asked: int) -> Tensor:
        return self.norm(run_blocks(self.blocks, sequence, mask, recompute=self.checkpointing, last=asked))


class StreamEmbedding(nn.Module):
    """One learned vector for all tokens of a stream; a part of `SumPositions`, so that shared blocks know whose they are.

    Args:
        width: of the tokens.
    """

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Parameter(nn.init.normal_(torch.empty(width), std=0.02))

    def forward(self, coords: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Coords [B, N, K] → [B, N, width], everywhere the same."""
        return self.token.expand(*coords.shape[:2], -1)
