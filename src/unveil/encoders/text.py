"""The text transformer: token ids → features (Radford et al. 2021, CLIP; without causality: FLIP)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder
from unveil.encoders.vit import Dimensions, Size, dimensions
from unveil.errors import UserError
from unveil.layers import Block, LayerNorm, run_blocks
from unveil.masking import Mask
from unveil.tokens import Positions, Tokens
from unveil.tokens.grid import coordinates

PADDING = 0
"""The id behind a text's end; a text may also hold it within."""


def last_word(x: Tensor) -> Tensor:
    """Where each text ends: the place of its last id that is no padding, int64 [B]; x is int64 [B, L]."""
    places = torch.arange(x.shape[1], device=x.device)
    return (places * (x != PADDING)).amax(1)


class TextTransformer(Encoder):
    """Token ids int64 [B, L], padded with 0 → tokens on a grid of L places.

    Args:
        size: a name in `SIZES` or `Dimensions`.
        vocabulary: number of ids.
        context: L, the most tokens of a text.
        causal: a token sees only those before it.
        pool: what stands for the whole text: the "last" token that is no padding (its end), or the "first".
        layer_norm, act: of the blocks, see there.
    """

    masked: Literal["drop"] = "drop"

    def __init__(
        self,
        size: Size | Dimensions,
        vocabulary: int,
        context: int,
        *,
        causal: bool = True,
        pool: Literal["last", "first"] = "last",
        layer_norm: Callable[[int], nn.Module] = LayerNorm,
        act: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        self.width, self.depth, heads = dimensions(size)
        self.context = context
        self.causal = causal
        self.pooling = pool
        self.embed = nn.Embedding(vocabulary, self.width)
        self.positions = Positions((context,), self.width, "learned")
        self.blocks = nn.ModuleList(Block(self.width, heads, norm=layer_norm, act=act) for _ in range(self.depth))
        self.norm = layer_norm(self.width)
        self._initialise()

    def _initialise(self) -> None:
        """As published (CLIP's model.py): by width, and what is added to the residual stream by depth as well."""
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.positions.table, std=0.01)
        added = self.width**-0.5 * (2 * self.depth) ** -0.5
        for block in self.blocks:
            layers = {
                "attn.qkv": self.width**-0.5,
                "attn.proj": added,
                "mlp.fc1": (2 * self.width) ** -0.5,
                "mlp.fc2": added,
            }
            for name, std in layers.items():
                layer = block.get_submodule(name)
                nn.init.normal_(layer.get_parameter("weight"), std=std)
                nn.init.zeros_(layer.get_parameter("bias"))

    def extra_repr(self) -> str:
        return f"context={self.context}, causal={self.causal}, pool={self.pooling!r}"

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """The places of a text: (L,)."""
        return (x.shape[1],)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: token ids int64 [B, L].
            mask: which of them may be seen; the others are left out.
            layer: stop after this block, without the norm; None runs all of it.

        Returns:
            tokens [B, N, D], whose `prefix` is the one that stands for the text [B, 1, D].

        Raises:
            UserError: there is no such layer, or the text is longer than the context.
        """
        if x.shape[1] > self.context:
            raise UserError(
                f"A text of {x.shape[1]} tokens, where this network reads {self.context}: encode it with less context."
            )
        grid = self.mask_grid(x)
        coords = coordinates(grid, x.device).expand(x.shape[0], -1, -1)
        # A shorter text has the first places, not all of them closer together.
        tokens = Tokens(self.embed(x) + self.positions(coords, (self.context,)), coords, grid)
        end = last_word(x) if self.pooling == "last" else torch.zeros_like(x[:, 0])
        if mask is not None:
            tokens = tokens.gather(mask.visible)
            end = (mask.visible == end[:, None]).long().argmax(1)
        later = None
        if self.causal:
            places = tokens.coords[..., 0]
            later = (places[:, None, :, None] >= places[:, None, None, :])[: 1 if mask is None else None]
        sequence = run_blocks(self.blocks[: self._stop(layer)], tokens.x, later, recompute=self.checkpointing)
        if layer is None:
            sequence = self.norm(sequence)
        whole = sequence.gather(1, end[:, None, None].expand(-1, 1, sequence.shape[-1]))
        return tokens._replace(x=sequence, prefix=whole)

    def pool(self, tokens: Tokens) -> Tensor:
        """The token that stands for the text [B, D]."""
        assert tokens.prefix is not None
        return tokens.prefix[:, 0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name here: 0 embedding, 1 … depth blocks, depth + 1 after them."""
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.depth + 1 if part == "norm" else 0
