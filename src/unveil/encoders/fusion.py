"""Encoders of several streams of one sample, and layers in which all their tokens meet (late fusion)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder
from unveil.layers import Block, LayerNorm, run_blocks, xavier
from unveil.masking import Mask
from unveil.tokens import Tokens


class Fusion(Encoder):
    """An encoder for each stream, then blocks over the tokens of all (Georgescu et al. 2023, Audiovisual MAE; MAViL).

    It takes whichever of its streams are given, as a mapping {"video": [B, C, T, H, W], "audio": [B, 1, L]}: of one alone, the
    joint blocks see its tokens alone.

    The tokens it returns are those of all streams, one after the other, on a grid of one axis. Their `stages` are those of
    each stream by itself: first as its own encoder leaves them, then after the joint blocks; in each, one `Tokens` for every
    stream given, in the order of `streams`.

    Args:
        stems: the streams' own encoders, by their keys; of one width and one depth.
        depth: number of joint blocks.
        heads: of their attention.
        norm: the last LayerNorm acts on "tokens", or on what is "pooled" (in fine-tuning).
        drop_path: stochastic depth of the joint blocks; a number for each.
        mlp_ratio: hidden width of their perceptrons, in widths.
        block: makes a block; called as `Block` is.
        initialise: sets the first values of the joint blocks.

    Raises:
        ValueError: stems of different widths or depths, or none.
    """

    def __init__(
        self,
        stems: Mapping[str, Encoder],
        depth: int,
        heads: int,
        *,
        norm: str = "tokens",
        drop_path: Sequence[float] = (),
        mlp_ratio: float = 4.0,
        block: Callable[..., nn.Module] = Block,
        initialise: Callable[[nn.Module], None] = xavier,
    ):
        super().__init__()
        shapes = {(stem.width, stem.depth) for stem in stems.values()}
        if len(shapes) != 1:
            raise ValueError(f"encoders whose tokens meet have one width and one depth, not {sorted(shapes)}")
        self.width, self.before = shapes.pop()
        self.depth = self.before + depth
        rates = tuple(drop_path) or (0.0,) * depth
        self.blocks = nn.ModuleList(block(self.width, heads, mlp_ratio, drop_path=rate) for rate in rates)
        self.norm = LayerNorm(self.width) if norm == "tokens" else None
        self.fc_norm = LayerNorm(self.width) if norm == "pooled" else None
        initialise(self)
        self.stems = nn.ModuleDict(stems)  # after the initialisation: they have theirs

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.stems)

    def only(self, *streams: str) -> Fusion:
        """The same network, for some of its streams: it shares all modules, and is not to be registered beside this one."""
        part = Fusion.__new__(Fusion)
        nn.Module.__init__(part)
        part.width, part.before, part.depth = self.width, self.before, self.depth
        part.checkpointing, part.training = self.checkpointing, self.training
        part.blocks, part.norm, part.fc_norm = self.blocks, self.norm, self.fc_norm
        part.stems = nn.ModuleDict()
        for key in streams:
            part.stems[key] = self.stems[key]
        return part

    def mask_grid(self, x: Mapping[str, Tensor]) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The grid of the joint tokens, of one axis. Masks are drawn stream by stream, each on its stem's own grid."""
        grids = [self.stems[key].mask_grid(x[key]) for key in self._given(x)]  # pyright: ignore[reportCallIssue]
        return (sum(torch.Size(grid).numel() for grid in grids),)

    def restored(self, x: Tensor) -> Tensor:
        """Of one stream alone: the signal that what was prepared stands for; see `Encoder`."""
        (stem,) = self.stems.values()
        return stem.restored(x)  # pyright: ignore[reportCallIssue]

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Mapping[str, Tensor], mask: Mapping[str, Mask] | None = None, layer: int | None = None
    ) -> Tokens:
        """
        Args:
            x: the streams, by their keys; others in the mapping are not looked at.
            mask: what may be seen of each; everything of a stream that has none.
            layer: stop after this block, counted through a stem and the joint blocks (1 … depth, negative from the end).

        Raises:
            UserError: there is no such layer.
        """
        stop = self._stop(layer)
        early = stop if layer is not None and stop <= self.before else None
        parts = [self.stems[key](x[key], (mask or {}).get(key), early) for key in self._given(x)]
        if early is not None:
            return _joined(parts, (parts,))
        joint = _joined(parts)
        blocks = self.blocks[: stop - self.before]
        sequence = run_blocks(blocks, joint.sequence(), joint.attention_mask(), recompute=self.checkpointing)
        if layer is None and self.norm is not None:
            sequence = self.norm(sequence)
        fused = _parted(joint.split(sequence), parts)
        return _joined(fused, (parts, fused))

    def pool(self, tokens: Tokens) -> Tensor:
        """The mean over streams of the mean of each one's tokens, [B, D]: one with many tokens does not drown the others."""
        pooled = torch.stack([part.mean() for part in tokens.stages[-1]]).mean(0)
        return pooled if self.fc_norm is None else self.fc_norm(pooled)

    def layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "stems":
            stem = self.stems[rest[0]]
            return stem.layer_of(".".join(rest[1:]))  # pyright: ignore[reportCallIssue]
        return self.before + int(rest[0]) + 1 if part == "blocks" else self.depth + 1

    def _given(self, x: Mapping[str, Tensor]) -> list[str]:
        found = [key for key in self.stems if key in x]
        if not found:
            raise ValueError(f"none of the streams {', '.join(self.stems)} is given, only {', '.join(x)}")
        return found


def _joined(parts: Sequence[Tokens], stages: Sequence[Sequence[Tokens]] = ()) -> Tokens:
    """The tokens of several streams, one after the other, on a grid of one axis: their places in this row."""
    x = torch.cat([part.x for part in parts], dim=1)
    prefixes = [part.prefix for part in parts if part.prefix is not None]
    valid = None
    if any(part.valid is not None for part in parts):
        valid = torch.cat(
            [x.new_ones(p.x.shape[:2], dtype=torch.bool) if p.valid is None else p.valid for p in parts], 1
        )
    places = torch.arange(x.shape[1], device=x.device)[:, None].expand(x.shape[0], -1, 1)
    prefix = torch.cat(prefixes, dim=1) if prefixes else None
    return Tokens(x, places, (x.shape[1],), prefix, valid, stages=stages)


def _parted(joint: Tokens, parts: Sequence[Tokens]) -> list[Tokens]:
    """The inverse of `_joined`: new features at the places that `parts` have."""
    found, token, prefix = [], 0, 0
    for part in parts:
        count, own = part.x.shape[1], 0 if part.prefix is None else part.prefix.shape[1]
        heads = None if joint.prefix is None or not own else joint.prefix[:, prefix : prefix + own]
        found.append(part._replace(x=joint.x[:, token : token + count], prefix=heads))
        token, prefix = token + count, prefix + own
    return found
