"""What a whole file holds."""

from __future__ import annotations

import pytest
from media import numbered_frames, write_video
from PIL import Image as Picture
from sounds import tone, write_clip, write_sound

from unveil.data.measure import Measured
from unveil.data.signals import SIGNALS, Image, Points, Sound, Video, owner
from unveil.errors import DecodeError


def test_a_video_is_counted_not_believed(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=16, rotation=90, bframes=2)
    assert Video.measure(path) == Measured(48, 64, 1.25, 16.0, 20, False)
    live = write_video(tmp_path / "live.mkv", numbered_frames(20), fps=16, container_options={"live": "1"})
    measured = Video.measure(live)
    assert (measured.frames, measured.duration) == (20, pytest.approx(1.25, abs=2e-3))


def test_an_image(tmp_path):
    Picture.new("L", (30, 20)).save(tmp_path / "a.png")
    assert Image.measure(tmp_path / "a.png") == Measured(30, 20)


def test_every_signal_measures_and_fails_with_the_file_named(tmp_path):
    for signal in SIGNALS:
        path = tmp_path / f"broken{min(signal.suffixes)}"
        path.write_bytes(b"no media")
        with pytest.raises(DecodeError, match="broken"):
            signal.measure(path)


def test_the_first_signal_that_reads_a_suffix_owns_it():
    for signal in (Video, Image, Points):
        assert all(owner(f"a{suffix}") is signal for suffix in signal.suffixes)
    assert {suffix for suffix in Sound.suffixes if owner(f"a{suffix}") is Video} == Video.suffixes
    assert all(owner(f"a{suffix}") is Sound for suffix in Sound.suffixes - Video.suffixes)


def test_a_sound(tmp_path):
    path = write_sound(tmp_path / "a.flac", tone(0.5, 22050, loudness=0.25)[None].repeat(2, axis=0), 22050)
    found = Sound.measure(path)
    assert found._replace(peak=None) == Measured(duration=0.5, has_audio=True, rate=22050, channels=2)
    assert found.peak == pytest.approx(0.25, abs=1e-3)
    clip = write_clip(tmp_path / "a.mkv", [0.2], [0.2], seconds=0.6, sound=(0.1, 0.6), codec="libmp3lame")
    assert Sound.measure(clip).duration == pytest.approx(0.6, abs=0.03)  # late, and of the clock of the pictures
