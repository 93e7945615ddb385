"""What a whole file holds."""

from __future__ import annotations

import pytest
from media import numbered_frames, write_video
from PIL import Image as Picture

from unveil.data.measure import Measured
from unveil.data.signals import SIGNALS, Image, Video
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


def test_no_suffix_belongs_to_two_signals():
    every = [suffix for signal in SIGNALS for suffix in signal.suffixes]
    assert len(every) == len(set(every))
