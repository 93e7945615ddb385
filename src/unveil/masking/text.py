"""Masking of texts: padding goes first, then words (FLIP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unveil.masking.mask import SALT, Mask, check_ratio


@dataclass(frozen=True)
class TextMasker:
    """Keep int(L × (1 - ratio)) of a text's L places: its first and its last token, then words drawn uniformly, then padding
    from the front ("prioritised", Li, Fan, Hu et al. 2023, section 4.1).

    Args:
        ratio: share that is masked, in [0, 1).
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, length: int, context: int, generator: torch.Generator) -> Mask:
        """
        Args:
            length: tokens that are no padding, at least 1.
            context: L.
            generator: of the sample.
        """
        keep = max(min(2, context), int(context * (1 - self.ratio)))
        urgency = torch.arange(1, context + 1, dtype=torch.float64)  # padding, from the front
        urgency[:length] = torch.rand(length, generator=generator, dtype=torch.float64)
        urgency[[0, length - 1]] = -1.0
        order = urgency.argsort(stable=True)
        return Mask(order[:keep].sort().values, order[keep:].sort().values)


def draw_words(masker: TextMasker, lengths: Tensor, context: int, seeds: Tensor) -> Mask:
    """One mask for each text, drawn from its own seed.

    Args:
        masker: of one text.
        lengths: int64 [B], tokens that are no padding.
        context: L.
        seeds: int64 [B]. Lies where the result shall.
    """
    masks = [
        masker(length, context, torch.Generator().manual_seed(seed ^ SALT))
        for length, seed in zip(lengths.tolist(), seeds.tolist(), strict=True)
    ]
    visible, masked = (torch.stack(part) for part in zip(*masks, strict=True))
    return Mask(visible, masked).to(seeds.device)
