"""The masked autoencoder's decoder: a small transformer over visible features and mask tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from unveil.layers import Block, LayerNorm, run_blocks, xavier
from unveil.layers.attention import QkvBias
from unveil.tokens import Tokens


class TransformerDecoder(nn.Module):
    """Embed the visible tokens, append a mask token at every place asked for, read the answers off those.

    Nothing is put back into order: tokens know their places (He et al. 2022 and Tong et al. 2022 in one).

    Args:
        in_width: of the encoder's tokens.
        out_width: values predicted for each token; None for the features themselves, without a norm and a linear layer.
        positions: `(coords, grid) → [B, N, width]`; of `in_width` where they are added first.
        width, depth, heads: of the decoder.
        positions_first: positions are added, and the mask token stands, before the linear embedding (OmniMAE) rather than after.
        class_token: "shared" takes the encoder's along, without a position (MAE), "own" has one of its own and drops
            the encoder's (MAE-ST), None has none (VideoMAE).
        embed_bias: bias of the linear embedding (VideoMAE: none).
        qkv_bias: see `Attention`.
        mlp_ratio: hidden width of the perceptrons, in widths.
        layer_scale: see `Block`.
        every: add positions before every block, and a learned one to the class token of its own (MAE3D).
        shared: the blocks and the norm behind them are another's, and handed over at the call (`SharedDecoder`); none are made.
        block: makes a block; called as `Block` is.
    """

    head_apart = True  # takes `read=False`, and `head` reads the predictions off what it then gives

    def __init__(
        self,
        in_width: int,
        out_width: int | None,
        positions: nn.Module,
        *,
        width: int,
        depth: int,
        heads: int,
        positions_first: bool = False,
        class_token: Literal["shared", "own"] | None = None,
        embed_bias: bool = True,
        qkv_bias: QkvBias = True,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        every: bool = False,
        shared: bool = False,
        block: Callable[..., nn.Module] = Block,
    ):
        super().__init__()
        self.checkpointing = False
        self.every = every
        self.share_class_token = class_token == "shared"
        self.embed = nn.Linear(in_width, width, bias=embed_bias)
        self.positions = positions
        self.positions_first = positions_first
        self.mask_token = nn.Parameter(torch.empty(1, 1, in_width if positions_first else width))
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if class_token == "own" else None
        own_place = every and class_token == "own"
        self.class_position = nn.Parameter(torch.empty(1, 1, width)) if own_place else None
        self.blocks = nn.ModuleList(
            block(width, heads, mlp_ratio, qkv_bias, layer_scale=layer_scale) for _ in range(0 if shared else depth)
        )
        self.norm = nn.Identity() if out_width is None or shared else LayerNorm(width)
        self.head = nn.Identity() if out_width is None else nn.Linear(width, out_width)
        xavier(self)
        for token in (self.mask_token, self.class_token, self.class_position):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def forward(
        self,
        tokens: Tokens,
        coords: Tensor,
        visible_too: bool = False,
        through: Callable[[Tensor, Tensor | None, int], Tensor] | None = None,
        read: bool = True,
    ) -> Tensor:
        """
        Args:
            tokens: the encoder's, x [B, Nv, in_width].
            coords: places to predict [B, Nq, K], on the same grid.
            visible_too: also read off the visible tokens, of which no loss asks anything; the published decoders do.
            through: blocks and norm that are shared with other decoders: `(sequence, mask, asked) → sequence`, of which the
                last `asked` tokens are read off, with or without the others.
            read: otherwise the features that `head` would read the predictions off, [B, Nq, width].

        Returns:
            predictions [B, Nq, out_width]; [B, Nv + Nq, out_width], those of the visible tokens first, when asked for.
        """
        places = [self.positions(at, tokens.grid) for at in (tokens.coords, coords)]
        queries = self.mask_token.expand_as(places[1])
        if self.positions_first:
            visible, queries = self.embed(tokens.x + places[0]), self.embed(queries + places[1])
        else:
            visible = self.embed(tokens.x)
            if not self.every:
                visible, queries = visible + places[0], queries + places[1]
        prefix = None
        if self.class_token is not None:
            prefix = self.class_token.expand(len(visible), -1, -1)
        elif self.share_class_token and tokens.prefix is not None:
            prefix = self.embed(tokens.prefix)
        valid = tokens.valid
        if valid is not None:
            valid = torch.cat([valid, valid.new_ones(coords.shape[:2])], dim=1)
        joined = Tokens(
            torch.cat([visible, queries], dim=1), torch.cat([tokens.coords, coords], dim=1), tokens.grid, prefix, valid
        )
        sequence, mask = joined.sequence(), joined.attention_mask()
        asked = coords.shape[1] + (visible.shape[1] if visible_too else 0)
        if through is not None:
            sequence = through(sequence, mask, asked)
        elif self.every:
            added = self._every(places, prefix)
            for number, block in enumerate(self.blocks, start=1):
                last = asked if number == len(self.blocks) else None
                sequence = run_blocks([block], sequence + added, mask, recompute=self.checkpointing, last=last)
        else:
            sequence = run_blocks(self.blocks, sequence, mask, recompute=self.checkpointing, last=asked)
        features = self.norm(sequence[:, -asked:])
        return self.head(features) if read else features

    def _every(self, places: list[Tensor], prefix: Tensor | None) -> Tensor:
        """What is added to the whole sequence before each block; nothing to a class token without a place."""
        if prefix is None:
            return torch.cat(places, dim=1)
        place = torch.zeros_like(prefix) if self.class_position is None else self.class_position.expand_as(prefix)
        return torch.cat([place, *places], dim=1)
