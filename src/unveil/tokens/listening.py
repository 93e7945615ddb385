"""Filter banks made audible: the waveform that has about this filter bank. What is lost (phases, fine pitch) is guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from unveil.tokens.spectrogram import FilterBank

MOMENTUM = 0.99
LEAST_EMPHASIS = 0.05
"""What pre-emphasis leaves of a low note, at least, when it is undone: what lies deeper is mostly error."""


def spectrum(bank: FilterBank, x: Tensor, rounds: int = 100) -> Tensor:
    """Log-mel filter banks [B,T,F] → magnitudes of a spectrum [B,T,points/2+1] that has them, without the pre-emphasis.

    Non-negative least squares by multiplicative updates (Lee & Seung 2001), which stay positive by themselves.
    """
    energy = x.exp()
    triangles = bank.triangles  # [points/2+1, F]
    power = energy @ triangles.T + 1e-10
    gram = triangles @ triangles.T
    wanted = energy @ triangles.T
    for _ in range(rounds):
        power = power * wanted / (power @ gram + 1e-10)
    angle = torch.linspace(0, torch.pi, power.shape[-1], device=x.device)
    emphasis = (1 - bank.emphasis * torch.exp(-1j * angle)).abs()
    magnitude = power.sqrt() / emphasis.clamp(min=LEAST_EMPHASIS)
    magnitude[..., 0] = 0  # each frame's mean was taken away
    return magnitude


def griffin_lim(bank: FilterBank, magnitude: Tensor, rounds: int = 60, seed: int = 0) -> Tensor:
    """Magnitudes [B,T,points/2+1] → waveforms [B,L] whose frames have them, L = (T - 1) × shift + window.

    Phases are random at first; then, in turn, the nearest waveform of such a spectrum is taken, and of that waveform's
    spectrum the phases (Griffin & Lim 1984; with momentum, Perraudin et al. 2013).
    """
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator).to(magnitude.device)
    spectra = torch.polar(magnitude, phase)
    before = torch.zeros_like(spectra)
    waves = _waveforms(bank, spectra)
    for _ in range(rounds):
        rebuilt = _spectra(bank, waves)
        ahead = rebuilt + MOMENTUM * (rebuilt - before)
        before = rebuilt
        spectra = magnitude * ahead / ahead.abs().clamp(min=1e-12)
        waves = _waveforms(bank, spectra)
    return waves


def _spectra(bank: FilterBank, waves: Tensor) -> Tensor:
    return torch.fft.rfft(waves.unfold(-1, bank.window, bank.shift) * bank.hanning, n=bank.points)


def _waveforms(bank: FilterBank, spectra: Tensor) -> Tensor:
    """The waveform whose windowed frames are nearest to those of the spectra, by least squares."""
    frames = torch.fft.irfft(spectra, n=bank.points)[..., : bank.window] * bank.hanning
    length = (frames.shape[1] - 1) * bank.shift + bank.window
    weight = bank.hanning.square().expand(frames.shape[1], -1)[None]
    summed, weighed = (_overlapped(part, length, bank.shift) for part in (frames, weight))
    return summed / weighed.clamp(min=1e-3)  # at the ends the window leaves next to nothing


def _overlapped(frames: Tensor, length: int, shift: int) -> Tensor:
    """Frames [B,T,window], each a shift later, added up: [B,L]."""
    columns = frames.transpose(1, 2)
    return functional.fold(columns, (1, length), (1, frames.shape[-1]), stride=(1, shift)).flatten(1)
