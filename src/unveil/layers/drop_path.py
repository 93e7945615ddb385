"""Stochastic depth (Huang et al. 2016): leave out whole residual branches, sample by sample."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero a residual branch with probability `rate` for each sample and scale up the rest; nothing in eval mode.

    Draws from the global generator, which the training loop seeds at every step.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        return f"{self.rate:.3g}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)
