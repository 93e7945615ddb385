"""A set of tokens that know their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.tokens.grid import coordinates, unravel


class Tokens(NamedTuple):
    """What passes between the parts of a network.

    Attributes:
        x: features or raw patches [B, N, D].
        coords: place of each token [B, N, K]: int64 on a grid, float32 in space (the centres of groups of points).
        grid: sizes of the whole grid, also where only some of its places are present.
        prefix: tokens without a place, in front: class tokens [B, M, D].
        valid: which tokens are real [B, N] bool; None when all are (nothing was padded).
        places: coords of the whole set [B, prod(grid), K], where they are not simply the grid's; None when they are.
        stages: what an encoder of several scales or pathways has to show besides, fine to coarse: one entry a stage,
            in it one `Tokens` a pathway. Dense heads read it; nothing else asks.
    """

    x: Tensor
    coords: Tensor
    grid: tuple[int, ...]
    prefix: Tensor | None = None
    valid: Tensor | None = None
    places: Tensor | None = None
    stages: Sequence[Sequence[Tokens]] = ()

    @classmethod
    def of_map(cls, x: Tensor) -> Tokens:
        """A feature map [B, D, *grid], as convolutions make it, as tokens in row-major order."""
        grid = tuple(x.shape[2:])
        return cls(x.flatten(2).transpose(1, 2), coordinates(grid, x.device).expand(x.shape[0], -1, -1), grid)

    def map(self) -> Tensor:
        """The tokens of a whole grid, in order, as a feature map [B, D, *grid]."""
        return self.x.transpose(1, 2).unflatten(2, self.grid)

    def at(self, indices: Tensor) -> Tensor:
        """Coords of the places `indices` [B, n] of the whole set, present or not: [B, n, K]."""
        if self.places is None:
            return unravel(indices, self.grid)
        return self.places.gather(1, indices[..., None].expand(-1, -1, self.places.shape[-1]))

    def gather(self, indices: Tensor) -> Tokens:
        """Keep the tokens at `indices` [B, n] (positions in this set, which are flat grid indices when it is whole)."""
        x = self.x.gather(1, indices[..., None].expand(-1, -1, self.x.shape[-1]))
        coords = self.coords.gather(1, indices[..., None].expand(-1, -1, self.coords.shape[-1]))
        valid = None if self.valid is None else self.valid.gather(1, indices)
        return self._replace(x=x, coords=coords, valid=valid)

    def sequence(self) -> Tensor:
        """Prefix and tokens as one sequence [B, M + N, D]."""
        return self.x if self.prefix is None else torch.cat([self.prefix, self.x], dim=1)

    def split(self, sequence: Tensor) -> Tokens:
        """The inverse of `sequence`: new features [B, M + N, D'] at the same places."""
        if self.prefix is None:
            return self._replace(x=sequence)
        m = self.prefix.shape[1]
        return self._replace(prefix=sequence[:, :m], x=sequence[:, m:])

    def attention_mask(self) -> Tensor | None:
        """Which keys may be attended to, [B, 1, 1, M + N] bool; None when all may."""
        if self.valid is None:
            return None
        valid = self.valid
        if self.prefix is not None:
            valid = torch.cat([valid.new_ones(self.prefix.shape[:2]), valid], dim=1)
        return valid[:, None, None]

    def mean(self) -> Tensor:
        """Mean of the real tokens, prefix left out: [B, D]."""
        if self.valid is None:
            return self.x.mean(1)
        weight = self.valid.to(self.x.dtype)[..., None]
        return (self.x * weight).sum(1) / weight.sum(1).clamp(min=1)
