"""Random changes of waveforms, float [1,L]: shift, loudness, mixing. Their reprs are written into the run folder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta


class RandomRoll:
    """Shift in time by any number of samples; what leaves at the end comes in at the beginning (Audio-MAE, arXiv:2207.06405)."""

    def __repr__(self) -> str:
        return "RandomRoll()"

    def __call__(self, x: Tensor) -> Tensor:
        return x.roll(int(torch.randint(x.shape[-1], ())), dims=-1)


class RandomLoudness:
    """Multiply by 0.5 + Beta(alpha, alpha): between half as loud and one and a half times as loud (Audio-MAE, arXiv:2207.06405).

    Args:
        alpha: the larger, the nearer to 1.
    """

    def __init__(self, alpha: float = 10.0):
        self.alpha = alpha

    def __repr__(self) -> str:
        return f"RandomLoudness(alpha={self.alpha:g})"

    def __call__(self, x: Tensor) -> Tensor:
        return x * (0.5 + _beta(self.alpha))


class WaveMixUp:
    """Two waveforms heard at once, their labels mixed alike (between-class learning, arXiv:1711.10282; AST, arXiv:2104.01778).

    Each waveform is taken about its mean before, and the mixture after.

    Args:
        alpha: of the Beta distribution of the first's share: 10 in AST and Audio-MAE.
    """

    def __init__(self, alpha: float):
        self.alpha = alpha

    def __call__(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """[2,1,L] and [2,classes], float: both rows mixed, the second with the shares exchanged."""
        share = _beta(self.alpha)
        x = x - x.mean(dim=-1, keepdim=True)
        mixed = share * x + (1 - share) * x.flip(0)
        return mixed - mixed.mean(dim=-1, keepdim=True), share * label + (1 - share) * label.flip(0)


def _beta(alpha: float) -> float:
    return float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
