import math

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unveil.errors import UserError
from unveil.tokens import FilterBank, Patchify, Spectrogram


def sound(length: int, rate: int = 16000, seed: int = 0) -> Tensor:
    """Noise, a tone and an offset [1, 1, L]."""
    noise = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    tone = torch.sin(2 * math.pi * 440 * torch.arange(length) / rate)
    return (0.1 * noise + 0.3 * tone + 0.2)[None, None]


def kaldi(x: Tensor, rate: int, bins: int, window: float = 25.0) -> Tensor:
    """[1, 1, L] → [T, F], by kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.frame_length_ms = window
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = bins
    options.use_energy = False
    options.htk_compat = True
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(rate, x.flatten().tolist())
    computer.input_finished()
    return torch.tensor(np.array([computer.get_frame(number) for number in range(computer.num_frames_ready)]))


def by_hand(x: Tensor, rate: int, bins: int) -> Tensor:
    """[1, 1, L] → [T, F] in double precision, number by number. (Kaldi's own code refuses 128 bins at 16 kHz, where some are empty.)"""
    wave, window, shift = x.flatten().double().numpy(), int(rate * 0.025), int(rate * 0.01)
    points = 2 ** math.ceil(math.log2(window))
    low, high = (1127 * math.log(1 + f / 700) for f in (20, rate / 2))
    step = (high - low) / (bins + 1)
    rows = []
    for start in range(0, len(wave) - window + 1, shift):
        frame = wave[start : start + window] - wave[start : start + window].mean()
        frame = np.concatenate([frame[:1] * 0.03, frame[1:] - 0.97 * frame[:-1]])
        frame *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
        power = np.abs(np.fft.rfft(frame, points)) ** 2
        energies = np.zeros(bins)
        for number in range(points // 2):
            place = (1127 * math.log(1 + number * rate / points / 700) - low) / step
            for i in range(bins):
                energies[i] += power[number] * max(0.0, min(place - i, i + 2 - place))
        rows.append(np.log(np.maximum(energies, 2.0**-23)))
    return torch.tensor(np.array(rows), dtype=torch.float32)


@pytest.mark.parametrize(
    ("rate", "bins", "window"),
    [
        *((8000, 23, 25.0), (8000, 64, 25.0), (16000, 80, 25.0), (16000, 128, 50.0)),
        *((22050, 128, 25.0), (44100, 128, 25.0), (48000, 80, 20.0)),
    ],
)
@pytest.mark.parametrize("length", [2500, 12345])
def test_equals_kaldi(rate: int, bins: int, window: float, length: int) -> None:
    x = sound(length, rate)
    bank = FilterBank(rate, bins, window / 1000)
    found = bank(x)[0, 0]
    expected = kaldi(x, rate, bins, window)
    assert found.shape == expected.shape == (bank.frames(length), bins)
    assert (found - expected).abs().max() < 1e-3


def test_equals_kaldi_as_audiomae_calls_it() -> None:
    x = sound(4000)
    found, expected = FilterBank()(x)[0, 0], by_hand(x, 16000, 128)
    assert (found - expected).abs().max() < 1e-3
    assert (found == math.log(2.0**-23)).any(0).sum() < 10  # triangles between two frequencies are few


def test_by_hand_is_kaldi() -> None:
    x = sound(3000)
    assert (by_hand(x, 16000, 80) - kaldi(x, 16000, 80)).abs().max() < 1e-3


def test_silence_is_the_least_energy() -> None:
    found = FilterBank(16000, 80)(torch.zeros(1, 1, 1000))
    assert torch.equal(found, torch.full_like(found, math.log(2.0**-23)))
    torch.testing.assert_close(found[0, 0], kaldi(torch.zeros(1, 1, 1000), 16000, 80), atol=1e-4, rtol=0)


def test_samples_of_a_batch_do_not_know_one_another() -> None:
    x = torch.cat([sound(3000, seed=seed) for seed in range(3)])
    bank = FilterBank()
    torch.testing.assert_close(bank(x)[1:2], bank(x[1:2]))


def test_full_precision_under_autocast() -> None:
    x, bank = sound(3000), FilterBank()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(bank(x), bank(x.clone()))
        found = bank(x)
    assert torch.equal(found, bank(x))


@pytest.mark.parametrize(
    ("options", "words"), [({"rate": 50}, "too few samples"), ({"rate": 8000, "high": 8000}, "--rate 8000")]
)
def test_rates_that_cannot_be(options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        FilterBank(**options)


def tokenizer(rate: int = 16000, bins: int = 128, patch: int = 16) -> Spectrogram:
    return Spectrogram(FilterBank(rate, bins), Patchify(patch, patch, channels=1))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40000), st.sampled_from([8000, 16000, 22050]), st.sampled_from([4, 8, 16]), st.integers(1, 3))
def test_the_grid_is_that_of_the_tokens(length: int, rate: int, patch: int, rows: int) -> None:
    """Whatever the duration; every `shift` samples make a frame, and frames fill whole patches."""
    cut = tokenizer(rate, rows * patch, patch)
    x = torch.zeros(1, 1, length)
    tokens = cut(x)
    frames = max(1, -(-(length // cut.bank.shift) // patch)) * patch
    assert tokens.grid == cut.grid(x.shape) == cut.grid((length,)) == (frames // patch, rows)
    assert tokens.x.shape == (1, math.prod(tokens.grid), cut.width)
    prepared = cut.prepared(x)
    assert prepared.shape == (1, 1, frames, rows * patch)
    assert cut.grid(prepared.shape) == tokens.grid
    assert torch.equal(cut.prepared(prepared), prepared)


def test_published_grid() -> None:
    assert tokenizer().grid((1, 163840)) == (64, 8)


def test_a_waveform_and_its_filter_bank_are_the_same_tokens() -> None:
    cut, x = tokenizer(), sound(16000)
    assert torch.equal(cut(x).x, cut(cut.prepared(x)).x)


def test_what_lacks_is_silence() -> None:
    """The last frames of a short waveform, and of a short filter bank, are those of silence."""
    cut = tokenizer(bins=80)
    wave = cut.prepared(sound(16000 + 800))  # 105 frames of sound, 112 in patches
    torch.testing.assert_close(wave[:, :, 105:], torch.full((1, 1, 7, 80), cut.silence))
    bank = cut.prepared(wave[:, :, :100])
    assert torch.equal(bank[:, :, :100], wave[:, :, :100])
    torch.testing.assert_close(bank[:, :, 100:], torch.full((1, 1, 12, 80), cut.silence))


def test_frames_of_sound_are_kaldis() -> None:
    cut, x = tokenizer(bins=80), sound(16000)
    expected = (kaldi(x, 16000, 80) - cut.mean) / (2 * cut.std)
    torch.testing.assert_close(cut.prepared(x)[0, 0, : len(expected)], expected, atol=2e-4, rtol=0)


def test_patches_have_to_divide_the_bins() -> None:
    with pytest.raises(UserError, match="--bins 40"):
        tokenizer(bins=40)
    with pytest.raises(ValueError, match="waveforms"):
        tokenizer()(torch.zeros(1, 2, 1000))


def test_exports() -> None:
    cut = tokenizer(bins=80)
    program = torch.export.export(
        _Features(cut), (torch.zeros(2, 1, 8000),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    x = torch.cat([sound(8000, seed=seed) for seed in range(3)])
    torch.testing.assert_close(program.module()(x), cut(x).x)


class _Features(torch.nn.Module):
    def __init__(self, cut: Spectrogram):
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(x).x
