"""What is random in a network while it learns: values and branches that are left out (dropout, stochastic depth), noise.

Every sample draws from its own seed, so what is left out does not depend on the samples with which it shares a micro-batch
or a process. That is what makes two processes equal to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_BITS = 24  # as many as a float32 holds
_GUMBEL = 0x6A09E667F3BCC908  # so that noise does not repeat what dropout and masks draw from the same seed


class Dropout(nn.Module):
    """Zero each value with probability `rate` and scale up the rest (Srivastava et al. 2014); nothing in eval mode.

    Draws from the seeds that `seed_dropout` gave; from the global generator where it gave none.
    """

    seeds: Tensor | None = None

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        return f"{self.rate:.3g}"

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] → [B, …]."""
        return self._dropped(x, x.shape)

    def _dropped(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = self._uniform(shape, x.device) >= self.rate
        return x * kept.to(x.dtype).div_(1 - self.rate)

    def _uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Numbers in [0, 1), float32 [shape]; the first axis counts samples.

        Raises:
            ValueError: neither as many samples as seeds nor a multiple of them (views, one set after the other).
        """
        if self.seeds is None:
            return torch.rand(shape, device=device)
        views, rest = divmod(shape[0], len(self.seeds))
        if rest:
            raise ValueError(f"dropout was seeded for {len(self.seeds)} samples, and meets {shape[0]}")
        samples = (self.seeds + _mixed(torch.arange(views, device=device))[:, None]).flatten()
        return (_bits(samples, shape[1:]).float() / 2**_BITS).view(shape)


class DropPath(Dropout):
    """Zero a residual branch with probability `rate` for each sample and scale up the rest (Huang et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] → [B, …]."""
        return self._dropped(x, (x.shape[0], *[1] * (x.ndim - 1)))


def gumbel(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Noise of the standard Gumbel distribution, each sample's from its own seed.

    Args:
        seeds: int64 [B].
        shape: of one sample.

    Returns:
        float32 [B, *shape], on the device of `seeds`.
    """
    uniform = (_bits(_mixed(seeds ^ _GUMBEL), shape).float() + 0.5) / 2**_BITS  # neither 0 nor, in effect, 1
    return -(-uniform.clamp(max=1 - 2**-_BITS).log()).log().view(len(seeds), *shape)


def _bits(samples: Tensor, shape: Sequence[int]) -> Tensor:
    """24 random bits for every value of every sample, of seeds that are mixed already: int64 [B, prod(shape)]."""
    values = torch.arange(math.prod(shape), device=samples.device)
    return _mixed(samples[:, None] + _mixed(values)) & (2**_BITS - 1)


def seed_dropout(network: nn.Module, seeds: Tensor) -> None:
    """From now on every dropout in `network` draws from the samples' seeds, each dropout in its own way.

    Args:
        network: with any number of `Dropout` and `DropPath`; their order in `modules()` tells them apart.
        seeds: int64 [B], on the network's device.
    """
    dropouts = [module for module in network.modules() if isinstance(module, Dropout)]
    for number, dropout in enumerate(dropouts):
        dropout.seeds = _mixed(_mixed(seeds) + number)  # seeds may be neighbours, whose sums with numbers would meet


def _mixed(x: Tensor) -> Tensor:
    """A bijection of int64 that leaves no pattern: splitmix64's finisher (Steele et al. 2014), one round with its stride."""
    x = (x + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; products wrap around
    x = (
        x ^ ((x >> 30) & 0x3FFFFFFFF)
    ) * -4658895280553007687  # shifts of int64 drag the sign along; the mask takes it off
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
