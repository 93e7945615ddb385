"""What can be listened to, and what cannot."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from media import numbered_frames, write_video
from PIL import Image as Picture
from sounds import tone, write_sound

from unveil.data import Dense, Image, Points, Sound, Video, Visual
from unveil.data.signals import SIGNALS
from unveil.serve.figures import kind_of


def played(file: bytes) -> tuple[np.ndarray, int]:
    with av.open(io.BytesIO(file)) as container:
        frames = list(container.decode(audio=0))
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate


@pytest.mark.parametrize("rate", [8000, 12345, 16000, 44100, 192000])
def test_a_sample_of_sound_is_a_small_file(rate):
    x = torch.from_numpy(tone(0.5, rate, 440))[None]
    file = Sound(0.5, rate).heard(x)
    heard, at = played(file)
    assert at <= max(rate, 7350)
    assert len(file) < 12_000
    assert len(heard) / at == pytest.approx(0.5, abs=0.13)  # whole frames of 1024
    strength = np.abs(np.fft.rfft(heard))
    assert strength.argmax() * at / len(heard) == pytest.approx(440, abs=10)
    assert Sound(0.5, rate).heard(torch.full((1, 100), float("nan")))  # a network that has gone astray is silent


def test_excerpts_and_lengths(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(1.5, 22050), 22050)
    heard, rate = played(Sound.excerpt(path, 0.5, 1.0))
    assert rate == 22050
    assert len(heard) / rate == pytest.approx(0.5, abs=0.1)
    assert Sound.lasts(path) == 1.5
    clip = write_video(tmp_path / "a.mp4", numbered_frames(8), fps=8)
    Picture.new("RGB", (8, 8)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    assert Video.lasts(clip) == 1.0
    for kind, file in ((Video, clip), (Image, tmp_path / "a.png"), (Points, tmp_path / "a.npy"), (Visual, clip)):
        assert kind.excerpt(file, 0.0, 1.0) is None
    assert (
        Image.lasts(tmp_path / "a.png") is Points.lasts(tmp_path / "a.npy") is Visual.lasts(tmp_path / "a.png") is None
    )
    assert Visual.lasts(clip) == 1.0
    for signal in (Video(Dense(2, 1)), Image(), Points(8), Visual(Dense(2, 1))):
        assert signal.heard(torch.zeros(3, 8)) is None


def test_as_what_a_file_was_read():
    assert kind_of("a.mp4", True) is Video
    assert kind_of("a.mp4", True, "audio") is Sound
    assert kind_of("a.mp4", True, "video") is Video
    assert kind_of("a.png", False, "video") is Image  # among clips
    assert kind_of("a.wav", True) is Sound
    assert (kind_of("strange", True), kind_of("strange", False)) == (Video, Image)
    assert kind_of("strange", True, "audio") is Sound
    assert {kind_of("a.npy", False, signal.key) for signal in SIGNALS} == {Points}
