"""Masks as two lists of indices, never a 0/1 tensor of uncertain polarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from unveil.errors import UserError

# Crops and flips of a sample are drawn from its seed too; without this the mask would repeat their random numbers.
SALT = 0x5DEECE66D


class Mask(NamedTuple):
    """Flat, ascending, row-major indices into a grid.

    Attributes:
        visible: what the encoder may see [B, Nv] int64 ([Nv] for one sample).
        masked: what is to be predicted [B, Nm] int64 ([Nm] for one sample).
    """

    visible: Tensor
    masked: Tensor

    def to(self, device: torch.device | str) -> Mask:
        return Mask(self.visible.to(device), self.masked.to(device))


class Masker(Protocol):
    """Draws the mask of one sample from the sizes of a grid and a generator."""

    def __call__(self, grid: Sequence[int], generator: torch.Generator) -> Mask: ...


@runtime_checkable
class PlacedMasker(Protocol):
    """Draws masks that depend on where the tokens of a sample lie, not only on how many there are."""

    def among(self, places: Tensor) -> Masker:
        """The masker of one sample, whose tokens lie at places [N, K]."""
        ...


def draw(masker: Masker | PlacedMasker, grid: Sequence[int], seeds: Tensor, places: Tensor | None = None) -> Mask:
    """One mask for each sample, drawn from its own seed.

    Args:
        masker: of one sample.
        grid: sizes of the grid.
        seeds: int64 [B]; the result does not depend on what else is in the batch. Lies where the result shall.
        places: of the tokens [B, N, K], for a masker that asks where they lie.

    Returns:
        Mask with visible [B, Nv] and masked [B, Nm] on the device of `seeds`.
    """
    if isinstance(masker, PlacedMasker):
        if places is None:
            raise ValueError(f"{masker!r} has to know where the tokens lie")
        maskers = [masker.among(of_one) for of_one in places.cpu()]
    else:
        maskers = [masker] * len(seeds)
    generators = [torch.Generator().manual_seed(seed ^ SALT) for seed in seeds.tolist()]
    masks = [one(grid, generator) for one, generator in zip(maskers, generators, strict=True)]
    visible, masked = (torch.stack(part) for part in zip(*masks, strict=True))
    return Mask(visible, masked).to(seeds.device)


def check_ratio(ratio: float) -> None:
    """
    Raises:
        UserError: the ratio is not in [0, 1).
    """
    if not 0 <= ratio < 1:
        raise UserError(f"A masking ratio (--ratio) lies in [0, 1), not {ratio}.")
