"""Sound as a picture: log-mel filter banks of waveforms, cut into patches of time and frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError
from unveil.precision import full_precision
from unveil.tokens.listening import griffin_lim, spectrum
from unveil.tokens.patchify import Patchify
from unveil.tokens.tokens import Tokens

EPSILON = torch.finfo(torch.float32).eps
"""The least energy: Kaldi takes the logarithm of at least this much, and so do all systems that were trained on its filter banks."""

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974
"""Of the filter banks of AudioSet, as AST and Audio-MAE measured them (128 bins, waveforms in [-1, 1])."""


def mel(frequency: Tensor) -> Tensor:
    """Hertz → mel, as HTK and Kaldi count it: 1127 ln(1 + f / 700)."""
    return 1127.0 * torch.log1p(frequency / 700.0)


class FilterBank(nn.Module):
    """`[B, 1, L] → [B, 1, T, F]`: the log-mel filter bank of Kaldi (Povey et al. 2011), in batches, on their device.

    As Audio-MAE and AST call it: of each frame the mean is subtracted, high frequencies are raised (pre-emphasis), a Hanning
    window is laid over it, and the power of its spectrum is summed up in triangles that are evenly spaced in mel; of that the
    natural logarithm. No dither, no frame of energies. Only whole frames are taken ("snip edges"): T = 1 + (L - window) //
    shift, none where the waveform is shorter than a window. Computed in float32, whatever the training's precision.

    Args:
        rate: samples of the waveform in a second.
        bins: F, how many triangles there are.
        window: length of a frame, in seconds; what is left of a sample is cut off, as Kaldi does.
        shift: from one frame to the next, in seconds; the same.
        low: frequency at which the first triangle begins, in hertz.
        high: frequency at which the last one ends; half the rate unless given.
        emphasis: share of the sample before that is subtracted from each.

    Raises:
        UserError: the rate is too low for a frame, or no frequencies lie between `low` and `high`.
    """

    hanning: Tensor
    triangles: Tensor

    def __init__(
        self,
        rate: int = 16000,
        bins: int = 128,
        window: float = 0.025,
        shift: float = 0.01,
        low: float = 20.0,
        high: float | None = None,
        emphasis: float = 0.97,
    ):
        super().__init__()
        high = rate / 2 if high is None else high
        self.rate = rate
        self.bins = bins
        # 0.01 × 16000 in floating point may be a little less than 160.
        self.window, self.shift = (int(seconds * rate + 1e-6) for seconds in (window, shift))
        if self.window < 2 or self.shift < 1:
            raise UserError(f"--rate {rate}: {window * 1000:g} ms of sound are too few samples for a spectrum.")
        if not 0 <= low < high <= rate / 2:
            raise UserError(
                f"--rate {rate}: the filter bank's frequencies, {low:g} to {high:g} Hz, do not lie in 0 … {rate / 2:g}."
            )
        self.emphasis = emphasis
        self.points = 1 << (self.window - 1).bit_length()
        self.register_buffer("hanning", torch.hann_window(self.window, periodic=False), persistent=False)
        self.register_buffer("triangles", self._triangles(low, high), persistent=False)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, bins={self.bins}, window={self.window}, shift={self.shift}"

    def _triangles(self, low: float, high: float) -> Tensor:
        """What each frequency of a spectrum adds to each bin [points / 2 + 1, F]; half the rate adds to none, as in Kaldi."""
        frequencies = torch.arange(self.points // 2 + 1, dtype=torch.float64) * self.rate / self.points
        first, last = mel(torch.tensor([low, high], dtype=torch.float64))
        step = (last - first) / (self.bins + 1)
        left = first + step * torch.arange(self.bins, dtype=torch.float64)
        place = (
            mel(frequencies)[:, None] - left
        ) / step  # 0 at the left end of a triangle, 1 at its top, 2 at its right
        weights = torch.minimum(place, 2 - place).clamp(min=0)
        weights[-1] = 0
        return weights.float()

    def frames(self, length: int) -> int:
        """How many whole frames a waveform of so many samples has."""
        return 0 if length < self.window else 1 + (length - self.window) // self.shift

    def forward(self, x: Tensor) -> Tensor:
        """Waveforms in [-1, 1] → natural logarithms of energies, at least ln 2⁻²³ ≈ -15.94."""
        with full_precision(x.device):
            frames = x.float().unfold(-1, self.window, self.shift)  # [B, 1, T, window]
            frames = frames - frames.mean(-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            spectrum = torch.fft.rfft((frames - self.emphasis * before) * self.hanning, n=self.points)
            power = spectrum.real.square() + spectrum.imag.square()
            return (power @ self.triangles).clamp(min=EPSILON).log()


class Spectrogram(nn.Module):
    """A tokenizer of sound: waveforms [B, 1, L], or filter banks that were made of them already [B, 1, T, F], → patches.

    A waveform is followed by silence, so that every `shift` samples make a frame and frames fill whole patches: T is L //
    shift, rounded up to a multiple of a patch's length, and one patch at least. So 10.24 s at 16 kHz are 1024 frames, 64 × 8
    patches of 16 × 16. The filter bank is normalised, (x - mean) / (2 std), as AST and Audio-MAE do. A filter bank that is
    handed in (its four axes tell) is taken as it is, normalised; where it does not fill its last patches, silence follows.

    The grid is (time, frequency). Any duration and any number of bins will do: positions are what has to follow.

    Args:
        bank: waveform → filter bank.
        patchify: of filter banks, with one channel; the bank's bins are a multiple of its second size.
        mean, std: of the filter banks of the data, one number each.
        augment: filter bank [B, 1, T, F] → the same, changed; at work in training (SpecAugment). None for none.

    Raises:
        UserError: patches do not divide the bins.
    """

    def __init__(
        self,
        bank: FilterBank,
        patchify: Patchify,
        mean: float = AUDIOSET_MEAN,
        std: float = AUDIOSET_STD,
        augment: nn.Module | None = None,
    ):
        super().__init__()
        if bank.bins % patchify.size[1]:
            raise UserError(
                f"--bins {bank.bins} cannot be cut into patches of {patchify.size[1]}: choose a multiple, or another --patch."
            )
        self.bank = bank
        self.patchify = patchify
        self.mean = mean
        self.std = std
        self.augment = augment

    def extra_repr(self) -> str:
        return f"{self.patchify}, mean={self.mean:g}, std={self.std:g}"

    @property
    def width(self) -> int:
        """Values in a patch."""
        return self.patchify.width

    @property
    def silence(self) -> float:
        """What a normalised filter bank holds where nothing sounds."""
        return (math.log(EPSILON) - self.mean) / (2 * self.std)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The grid of a batch of this shape, [B, 1, L] or [B, 1, T, F]; of a waveform its last axis will do."""
        frames = shape[-2] if len(shape) == 4 else shape[-1] // self.bank.shift
        return self.patchify.grid((self._whole(frames), shape[-1] if len(shape) == 4 else self.bank.bins))

    def _whole(self, frames: int) -> int:
        """So many frames, or a few more that fill the last patch."""
        length = self.patchify.size[0]
        return max(1, -(-frames // length)) * length

    def prepared(self, x: Tensor) -> Tensor:
        """The normalised filter bank of whole patches [B, 1, T, F], which is what is cut; of itself it is itself.

        Raises:
            ValueError: neither a waveform nor a filter bank, of one channel.
        """
        if x.ndim not in (3, 4) or x.shape[1] != 1:
            raise ValueError(
                f"a spectrogram takes waveforms [B, 1, L] or filter banks [B, 1, T, F], not {tuple(x.shape)}"
            )
        if x.ndim == 4:
            lacking = self._whole(x.shape[2]) - x.shape[2]
            return functional.pad(x, (0, 0, 0, lacking), value=self.silence) if lacking else x
        shift, window = self.bank.shift, self.bank.window
        frames = self._whole(x.shape[-1] // shift)
        wanted = (frames - 1) * shift + window
        x = functional.pad(x, (0, max(0, wanted - x.shape[-1])))[..., :wanted]
        return (self.bank(x) - self.mean) / (2 * self.std)

    def restored(self, x: Tensor) -> Tensor:
        """Normalised filter banks [B, 1, T, F] → waveforms [B, 1, L] that have about these, to be listened to; others as they are."""
        if x.ndim != 4:
            return x
        with full_precision(x.device):
            logarithms = x[:, 0].float() * (2 * self.std) + self.mean
            return griffin_lim(self.bank, spectrum(self.bank, logarithms))[:, None]

    def forward(self, x: Tensor) -> Tokens:
        """[B, 1, L] or [B, 1, T, F] → tokens with x [B, N, P], in row-major order of (time, frequency)."""
        x = self.prepared(x)
        return self.patchify(x if self.augment is None else self.augment(x))
