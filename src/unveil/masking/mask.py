"""Masks as two lists of indices, never a 0/1 tensor of uncertain polarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

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


def draw(masker: Masker, grid: Sequence[int], seeds: Tensor) -> Mask:
    """One mask for each sample, drawn from its own seed.

    Args:
        masker: of one sample.
        grid: sizes of the grid.
        seeds: int64 [B]; the result does not depend on what else is in the batch. Lies where the result shall.

    Returns:
        Mask with visible [B, Nv] and masked [B, Nm] on the device of `seeds`.
    """
    masks = [masker(grid, torch.Generator().manual_seed(seed ^ SALT)) for seed in seeds.tolist()]
    visible, masked = (torch.stack(part) for part in zip(*masks, strict=True))
    return Mask(visible, masked).to(seeds.device)


def check_ratio(ratio: float) -> None:
    """
    Raises:
        UserError: the ratio is not in [0, 1).
    """
    if not 0 <= ratio < 1:
        raise UserError(f"A masking ratio (--ratio) lies in [0, 1), not {ratio}.")
