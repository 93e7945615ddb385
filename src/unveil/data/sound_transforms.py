"""Random changes of waveforms, float [1,L]: shift, loudness, mixing. Their reprs are written into the run folder."""

from __future__ import annotations

from collections.abc import Mapping

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
        return _heard_at_once(x, share), _mixed(label, share)


class MixUpTogether:
    """Two clips with their sound mixed by one share, drawn from Beta(alpha, alpha): pictures as mixup does (arXiv:1710.09412),
    waveforms as `WaveMixUp` does, and labels.

    Args:
        alpha: of the Beta distribution of the first's share.
    """

    def __init__(self, alpha: float):
        self.alpha = alpha

    def __call__(self, streams: Mapping[str, Tensor], label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """{key: [2,C,T,H,W] or [2,1,L]} and [2,classes], float: both rows mixed, the second with the shares exchanged."""
        share = _beta(self.alpha)
        mixed = {key: _heard_at_once(x, share) if x.ndim == 3 else _mixed(x, share) for key, x in streams.items()}
        return mixed, _mixed(label, share)


def _heard_at_once(x: Tensor, share: float) -> Tensor:
    mixed = _mixed(x - x.mean(dim=-1, keepdim=True), share)
    return mixed - mixed.mean(dim=-1, keepdim=True)


def _mixed(x: Tensor, share: float) -> Tensor:
    return share * x + (1 - share) * x.flip(0)


def _beta(alpha: float) -> float:
    return float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
