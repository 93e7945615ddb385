"""Stretches of time and bands of frequency that are blotted out of a spectrogram in training (Park et al. 2019, SpecAugment)."""

from __future__ import annotations

import torch
from torch import Tensor

from unveil.layers.dropout import Dropout


class SpecAugment(Dropout):
    """Blot one stretch of time and one band of frequency out of each filter bank: [B, 1, T, F] → [B, 1, T, F]; nothing in eval mode.

    How long each is, from nothing up to a limit, and where it lies, is drawn from the sample's seed, as of every `Dropout`.

    Args:
        time: frames that a stretch is shorter than.
        frequency: bins that a band is narrower than.
        value: what is put there.
    """

    def __init__(self, time: int, frequency: int, value: float = 0.0):
        super().__init__()
        self.time = time
        self.frequency = frequency
        self.value = value

    def extra_repr(self) -> str:
        return f"time={self.time}, frequency={self.frequency}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not (self.time or self.frequency):
            return x
        drawn = self._uniform((x.shape[0], 4), x.device)
        for axis, limit in enumerate((self.time, self.frequency)):
            size = x.shape[2 + axis]
            long = (drawn[:, 2 * axis] * min(limit, size)).floor()
            start = (drawn[:, 2 * axis + 1] * (size - long + 1)).floor()
            places = torch.arange(size, device=x.device)
            inside = (places >= start[:, None]) & (places < (start + long)[:, None])
            x = x.masked_fill(inside[:, None, :, None] if axis == 0 else inside[:, None, None], self.value)
        return x
