"""How a tokenizer uses its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class CodeBook(NamedTuple):
    """
    Attributes:
        counts: how often each code was the likeliest [vocab] int64.
    """

    counts: Tensor

    @property
    def used(self) -> float:
        """Share of the codes that were met at all."""
        return (self.counts > 0).float().mean().item()

    @property
    def perplexity(self) -> float:
        """The exponential of the entropy: of codes that are all met alike often, their number."""
        p = self.counts.double() / self.counts.sum().clamp(min=1)
        return torch.special.entr(p).sum().exp().item()

    @property
    def metrics(self) -> dict[str, float]:
        """For the log."""
        return {"perplexity": self.perplexity, "codes_used": self.used}


@torch.no_grad()
def codebook(objective: nn.Module, signals: Iterable[Tensor], key: str, device: torch.device | str) -> CodeBook:
    """Count the codes of signals.

    Args:
        objective: has `codes(batch) → [B, N]` and `vocab`.
        signals: batches of them, normalised [B, C, *S].
        key: of the signal.
        device: where the network is.
    """
    network: Any = objective
    counts = torch.zeros(network.vocab, dtype=torch.int64)
    for x in signals:
        codes = network.codes({key: x.to(device)})
        counts += torch.bincount(codes.flatten().cpu(), minlength=network.vocab)
    return CodeBook(counts)
