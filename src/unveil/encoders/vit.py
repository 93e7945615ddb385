"""The vision transformer, over tokens of any number of axes (Dosovitskiy et al. 2021)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder, hide
from unveil.errors import UserError
from unveil.layers import Block, LayerNorm, run_blocks, xavier
from unveil.layers.attention import QkvBias
from unveil.masking import Mask
from unveil.tokens import Patchify, Tokenizer, Tokens, resample


class Dimensions(NamedTuple):
    width: int
    depth: int
    heads: int


#: A name in `SIZES`, or any other size as WIDTHxDEPTHxHEADS: "512x8x8".
Size = Literal["debug", "nano", "Ti", "S", "B", "L", "H"] | str

SIZES: dict[str, Dimensions] = {
    "debug": Dimensions(32, 2, 2),
    "nano": Dimensions(128, 4, 4),
    "Ti": Dimensions(192, 12, 3),
    "S": Dimensions(384, 12, 6),
    "B": Dimensions(768, 12, 12),
    "L": Dimensions(1024, 24, 16),
    "H": Dimensions(1280, 32, 16),
}


def dimensions(size: Size | Dimensions) -> Dimensions:
    """Width, depth and heads of a size by its name, or by its numbers ("512x8x8"); dimensions are passed through.

    Raises:
        UserError: no such size, or heads that do not divide the width.
    """
    if isinstance(size, Dimensions):
        return size
    if size in SIZES:
        return SIZES[size]
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", size)
    if numbers is None:
        raise UserError(f"There is no size {size!r}: use {', '.join(SIZES)}, or WIDTHxDEPTHxHEADS, such as 512x8x8.")
    found = Dimensions(*map(int, numbers.groups()))
    if found.width % found.heads:
        raise UserError(f"A size of {size} cannot be: {found.heads} heads do not divide a width of {found.width}.")
    return found


class ViT(Encoder):
    """Patches → transformer → tokens.

    Raw patches are gathered before they are embedded, so what is masked costs nothing.

    Args:
        size: a name in `SIZES` or `Dimensions`.
        patchify: how the signal is cut: anything called as `Patchify` is, with `.width` and `.grid(shape)`.
        embed: raw patches [B, N, P] → [B, N, D]; None for one linear layer.
        positions: added to the embedded patches: `(coords, grid) → [B, N, D]`; None for none.
        every: add positions before every block, and a learned one to the class token (MAE3D).
        attention_bias: added to the scores of every block, for relative positions: `(coords, grid, prefix) → [B or 1,
            heads, M + N, M + N]`, where `prefix` counts the class tokens. One for all blocks, or a `ModuleList` with one
            for each; weights of the former begin all of the latter. None for none.
        class_token: put a learned token in front.
        masked: what becomes of masked tokens: "drop" leaves them out, "replace" puts a learned token in their place.
        pool: how tokens become one vector: "mean" over them, or the "class" token.
        norm: the last LayerNorm acts on "tokens", or on what is "pooled" (as in fine-tuning with mean pooling: MAE,
            VideoMAE; it is a norm of its own, not the one learned in pre-training); None for none.
        drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
        qkv_bias: True, False or "qv", see `Attention`.
        mlp_ratio: hidden width of the perceptrons, in widths.
        layer_scale: see `Block`.
        norm_first: another norm, before the blocks (CLIP).
        layer_norm: makes the norms outside of the blocks.
        block: makes a block; called as `Block` is.
        initialise: sets the first values of the linear layers.
    """

    def __init__(
        self,
        size: Size | Dimensions,
        patchify: Tokenizer,
        positions: nn.Module | None,
        *,
        embed: nn.Module | None = None,
        every: bool = False,
        attention_bias: nn.Module | None = None,
        class_token: bool = True,
        masked: Literal["drop", "replace"] = "drop",
        pool: Literal["mean", "class"] = "mean",
        norm: Literal["tokens", "pooled"] | None = "tokens",
        drop_path: float = 0.0,
        qkv_bias: QkvBias = True,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        norm_first: bool = False,
        layer_norm: Callable[[int], nn.Module] = LayerNorm,
        block: Callable[..., nn.Module] = Block,
        initialise: Callable[[nn.Module], None] = xavier,
    ):
        super().__init__()
        if pool == "class" and not class_token:
            raise ValueError('pool="class" needs a class token')
        if every and (positions is None or isinstance(attention_bias, nn.ModuleList)):
            raise ValueError(
                "every: positions that are added before every block, which share one bias of the attention"
            )
        self.width, self.depth, heads = dimensions(size)
        self.patchify = patchify
        self.masked = masked
        self.pooling = pool
        self.embed = nn.Linear(patchify.width, self.width) if embed is None else embed
        self.positions = positions
        self.attention_bias = attention_bias
        self.class_token = nn.Parameter(torch.empty(1, 1, self.width)) if class_token else None
        self.class_position = nn.Parameter(torch.empty(1, 1, self.width)) if class_token and every else None
        self.every = every
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.width)) if masked == "replace" else None
        rates = [drop_path * i / max(1, self.depth - 1) for i in range(self.depth)]
        self.norm_first = layer_norm(self.width) if norm_first else None
        self.blocks = nn.ModuleList(block(self.width, heads, mlp_ratio, qkv_bias, rate, layer_scale) for rate in rates)
        self.norm = layer_norm(self.width) if norm == "tokens" else None
        self.fc_norm = layer_norm(self.width) if norm == "pooled" else None
        initialise(self)
        for token in (self.class_token, self.class_position, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def extra_repr(self) -> str:
        return f"{self.patchify}, masked={self.masked!r}, pool={self.pooling!r}"

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """The grid on which masks of this signal are drawn."""
        return self.patchify.grid(x.shape)

    def prepared(self, x: Tensor) -> Tensor:
        """What the tokenizer cuts; see `Encoder`."""
        return self.patchify.prepared(x)

    def restored(self, x: Tensor) -> Tensor:
        """What was prepared, as a signal again; see `Encoder`."""
        return self.patchify.restored(x)

    def places(self, x: Tensor) -> Tensor:
        """Where the tokens of this signal lie [B, N, K]: on the grid, or in space."""
        tokens = self.patchify(x)
        return tokens.coords if tokens.places is None else tokens.places

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: normalised signal [B, C, *S].
            mask: what may be seen; everything when None.
            layer: stop after this block (1 … depth, or -1 for the last, -2 …), without the norm; None runs all of it.

        Returns:
            tokens with x [B, N, D]: N counts the visible ones when masked tokens are dropped.

        Raises:
            UserError: there is no such layer.
        """
        tokens = self.patchify(x)
        if mask is not None and self.masked == "drop":
            tokens = tokens.gather(mask.visible)
        embedded = self.embed(tokens.x)
        if mask is not None and self.mask_token is not None:
            embedded = hide(embedded, mask.masked, self.mask_token)
        places = None if self.positions is None else self.positions(tokens.coords, tokens.grid)
        if places is not None and not self.every:
            embedded = embedded + places
        prefix = None
        if self.class_token is not None:
            prefix = self.class_token.expand(x.shape[0], -1, -1)  # len(x) would fix an export's batch
        tokens = tokens._replace(x=embedded, prefix=prefix)

        blocks = self.blocks[: self._stop(layer)]
        sequence = tokens.sequence() if self.norm_first is None else self.norm_first(tokens.sequence())
        if isinstance(self.attention_bias, nn.ModuleList):
            for block, bias in zip(blocks, self.attention_bias, strict=False):
                sequence = run_blocks([block], sequence, _scores(tokens, bias), recompute=self.checkpointing)
        elif self.every and places is not None:
            if self.class_position is not None:
                places = torch.cat([self.class_position.expand(x.shape[0], -1, -1), places], dim=1)
            scores = _scores(tokens, self.attention_bias)
            for block in blocks:
                sequence = run_blocks([block], sequence + places, scores, recompute=self.checkpointing)
        else:
            sequence = run_blocks(blocks, sequence, _scores(tokens, self.attention_bias), recompute=self.checkpointing)
        if layer is None and self.norm is not None:
            sequence = self.norm(sequence)
        return tokens.split(sequence)

    def pool(self, tokens: Tokens) -> Tensor:
        """Tokens → one vector for each sample [B, D]."""
        if self.pooling == "class" and tokens.prefix is not None:
            pooled = tokens.prefix[:, 0]
        else:
            pooled = tokens.mean()
        return pooled if self.fc_norm is None else self.fc_norm(pooled)

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Make weights of another such network this one's, in place; returns the names of what was changed.

        A bias of the attention that all blocks shared is given to each that has its own. An embedding made for patches of
        another size is resampled. A weight does not tell the shape of its patches: square ones of this network's length are
        assumed, or, where there are none of so many values, this network's own of another length; an image's weights then
        make a clip's.
        """
        self._share_bias(state, f"{prefix}attention_bias.")
        name = f"{prefix}embed.weight"
        weight, patchify = state.get(name), self.patchify
        if weight is None or not isinstance(self.embed, nn.Linear) or not isinstance(patchify, Patchify):
            return []
        if weight.shape == self.embed.weight.shape or weight.shape[0] != self.width or weight.ndim != 2:
            return []
        *length, height, side = patchify.size
        values, rest = divmod(weight.shape[1], patchify.channels)
        if rest or height != side:
            return []
        area, uneven = divmod(values, math.prod(length))
        if not uneven and math.isqrt(area) ** 2 == area:
            before = (*length, math.isqrt(area), math.isqrt(area))
        elif len(length) == 1 and values % side**2 == 0:
            before = (values // side**2, side, side)
        else:
            return []
        state[name] = resample(weight, before, patchify.size)
        return [name]

    def _share_bias(self, state: dict[str, Any], prefix: str) -> None:
        if not isinstance(self.attention_bias, nn.ModuleList) or not len(self.attention_bias):
            return
        for part in self.attention_bias[0].state_dict():
            shared = state.pop(f"{prefix}{part}", None)
            if shared is not None:
                state.update({f"{prefix}{number}.{part}": shared for number in range(len(self.attention_bias))})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.adapt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name here: 0 embedding, 1 … depth blocks, depth + 1 after them."""
        part, *rest = name.split(".")
        if part == "blocks" or (part == "attention_bias" and isinstance(self.attention_bias, nn.ModuleList)):
            return int(rest[0]) + 1
        return self.depth + 1 if part in ("norm", "fc_norm", "attention_bias") else 0


def _scores(tokens: Tokens, bias: nn.Module | None) -> Tensor | None:
    """What is added to the scores of a block, or which may attend to which; None for nothing."""
    valid = tokens.attention_mask()
    if bias is None:
        return valid
    added = bias(tokens.coords, tokens.grid, 0 if tokens.prefix is None else tokens.prefix.shape[1])
    return added if valid is None else added.masked_fill(~valid, float("-inf"))
