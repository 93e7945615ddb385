"""A set of tokens that know their places."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """What passes between the parts of a network.

    Attributes:
        x: features or raw patches [B, N, D].
        coords: place of each token on the grid [B, N, K], int64.
        grid: sizes of the whole grid, also where only some of its places are present.
        prefix: tokens without a place, in front: class tokens [B, M, D].
        valid: which tokens are real [B, N] bool; None when all are (nothing was padded).
    """

    x: Tensor
    coords: Tensor
    grid: tuple[int, ...]
    prefix: Tensor | None = None
    valid: Tensor | None = None

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
