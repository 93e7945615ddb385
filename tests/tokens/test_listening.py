"""Filter banks made audible."""

import math

import pytest
import torch

from unveil.tokens import FilterBank, Groups, Patchify, Spectrogram
from unveil.tokens.listening import griffin_lim, spectrum


def melody(rate: int, seconds: float) -> torch.Tensor:
    """Two notes that come and go, and a little noise [1, 1, L]."""
    t = torch.arange(round(rate * seconds)) / rate
    x = 0.3 * torch.sin(2 * math.pi * (500 * t + 200 * t**2)) * (t * 7).sin().abs()
    return (x + 0.2 * torch.sin(2 * math.pi * 1500 * t) * (t > seconds / 2))[None, None] + 0.001 * torch.randn(
        1, 1, len(t), generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize(("rate", "bins", "most"), [(8000, 64, 0.25), (16000, 128, 0.25), (16000, 40, 0.6)])
def test_what_is_made_audible_has_the_filter_bank_that_it_was_made_of(rate, bins, most):
    x = melody(rate, 0.96)
    tokenizer = Spectrogram(FilterBank(rate, bins), Patchify(8, 8, channels=1))
    bank = tokenizer.prepared(x)
    wave = tokenizer.restored(bank)
    assert (wave.dtype, wave.shape[:2]) == (torch.float32, (1, 1))
    again = tokenizer.prepared(wave)[:, :, : bank.shape[2]]
    loud = bank > bank.max() - 0.8  # seven nepers below the loudest: what is heard
    error = (again - bank).abs()[loud].mean() * 2 * tokenizer.std
    assert error < most  # of natural logarithms of energy: a decibel, and more where bins are wide
    assert wave.std() == pytest.approx(float(x.std()), rel=0.3)
    assert torch.equal(wave, tokenizer.restored(bank))  # the phases that are guessed at first are always the same


def test_a_spectrum_of_the_energies_is_not_negative():
    bank = FilterBank(16000, 64)
    logarithms = bank(melody(16000, 0.5))[:, 0]
    magnitude = spectrum(bank, logarithms)
    assert (magnitude >= 0).all()
    emphasis = (1 - bank.emphasis * torch.exp(-1j * torch.linspace(0, torch.pi, bank.points // 2 + 1))).abs()
    energies = (magnitude * emphasis).square() @ bank.triangles
    loud = logarithms > logarithms.max() - 6
    assert (energies.log() - logarithms)[loud].abs().median() < 0.05
    wave = griffin_lim(bank, magnitude)
    assert wave.shape == (1, (magnitude.shape[1] - 1) * bank.shift + bank.window)


def test_silence_and_waveforms():
    tokenizer = Spectrogram(FilterBank(8000, 32), Patchify(8, 8, channels=1))
    quiet = tokenizer.restored(tokenizer.prepared(torch.zeros(2, 1, 2400)))
    assert quiet.isfinite().all()
    assert quiet.abs().max() < 1e-2
    x = torch.randn(2, 1, 500)
    assert tokenizer.restored(x) is x
    assert Patchify(4, channels=1).restored(x) is x
    assert Groups(4).restored(x) is x
