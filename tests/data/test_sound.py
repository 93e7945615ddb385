"""Stretches of sound as samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import chirp, tone, write_clip, write_sound

from unveil.data import Row, Signal, Sound, SoundReader, signal_of, to_input
from unveil.data.signals import SIGNALS, Video, owner
from unveil.errors import DecodeError, UserError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_sound(tmp_path_factory.mktemp("sound") / "a.wav", chirp(4.0, 8000), 8000)


def where(x: torch.Tensor, whole: torch.Tensor) -> int:
    """The place of a stretch [1, L] in the whole sound [1, N]."""
    begins = whole[0].unfold(0, 64, 1)
    (place,) = torch.nonzero((begins == x[0, :64]).all(dim=1))[:, 0].tolist()
    assert torch.equal(whole[:, place : place + x.shape[1]], x)
    return place


def test_read(file):
    signal: Signal = Sound(1.0, 8000)
    assert (signal.key, ".flac" in signal.suffixes, ".mp4" in signal.suffixes) == ("audio", True, True)
    with SoundReader(file) as sound:
        whole = sound.read(0, 4, 8000)
    places = []
    for seed in range(20):
        x = signal.read(Row(str(file)), torch.Generator().manual_seed(seed))
        assert (x.dtype, x.shape) == (torch.float32, (1, 8000))
        places.append(where(x, whole))
    assert len(set(places)) > 15 and min(places) < 8000 and max(places) > 16000 and max(places) <= 24000  # noqa: PT018
    assert torch.equal(to_input(x, (0.5,), (0.5,)), x)
    segment = Row(str(file), start=1.5, end=2.75)
    for seed in range(10):
        assert 12000 <= where(signal.read(segment, torch.Generator().manual_seed(seed)), whole) <= 14000
    moments = signal.moments(Row(str(file)), 3, torch.Generator().manual_seed(0))
    assert len({where(x, whole) for x in moments}) == 3


def test_views(file):
    with SoundReader(file) as sound:
        whole = sound.read(0, 4, 8000)
    assert [where(x, whole) for x in Sound(1.0, 8000).views(Row(str(file)), 3)] == [0, 12000, 24000]
    assert [where(x, whole) for x in Sound(1.0, 8000).views(Row(str(file)))] == [12000]


def test_short_files_are_followed_by_silence(file):
    x = Sound(1.0, 8000).read(Row(str(file), start=3.5, end=3.75))
    assert x[0, :2000].any()
    assert not x[0, 2000:].any()
    (x,) = Sound(6.0, 8000).views(Row(str(file)))
    assert not x[0, 32000:].any()
    with pytest.raises(DecodeError, match=r"starts at 5 s, the sound ends at 4\.000"):
        Sound(1.0).read(Row(str(file), start=5.0))


def test_impossible_samples():
    for seconds, rate in ((0, 16000), (-1.0, 16000), (float("inf"), 16000), (1e-9, 16000), (1.0, 0)):
        with pytest.raises(ValueError, match="at least 1 / rate"):
            Sound(seconds, rate)


@settings(max_examples=80, deadline=None)
@given(
    total=st.integers(1, 200),
    length=st.integers(1, 60),
    step=st.integers(1, 90),
    sizes=st.lists(st.integers(1, 50), min_size=1),
)
def test_windows_cover_the_whole_sound(total, length, step, sizes):
    samples = np.arange(1, total + 1, dtype=np.float32)
    cuts = np.cumsum([sizes[i % len(sizes)] for i in range(total)])
    blocks = [block for block in np.split(samples, cuts[cuts < total]) if len(block)]
    found = list(Sound(length, 1)._windows(iter(blocks), step))
    # A window for each start before the end, as long as it brings samples that the one before has not.
    starts = [0]
    while starts[-1] + step < total and starts[-1] + length < total:
        starts.append(starts[-1] + step)
    assert [start for start, _, _ in found] == starts
    for start, end, x in found:
        begun = int(start)
        assert end == min(begun + length, total)
        expected = np.zeros(length, np.float32)
        kept = samples[begun : begun + length]
        expected[: len(kept)] = kept
        assert x[0].tolist() == expected.tolist()


def test_windows(file):
    found = list(Sound(1.5, 8000).windows(file))
    assert [(a, b) for a, b, _ in found] == [(0.0, 1.5), (1.5, 3.0), (3.0, 4.0)]
    assert all(x.shape == (1, 12000) for _, _, x in found)
    assert not found[-1][2][0, 8000:].any()
    assert [(a, b) for a, b, _ in Sound(3.0, 8000).windows(file, hop=0.5)] == [(0.0, 3.0), (0.5, 3.5), (1.0, 4.0)]
    assert [(a, b) for a, b, _ in Sound(9.0, 8000).windows(file)] == [(0.0, 4.0)]


def test_what_a_file_is(tmp_path, file):
    (tmp_path / "clips").mkdir()
    clip = write_clip(tmp_path / "clips" / "a.mp4", [0.2], [0.2], seconds=0.6)
    assert owner(file) is Sound
    assert owner(clip) is Video  # its sound track can be read, but is not what it is
    assert owner("a.txt") is None
    assert signal_of([file.parent]) == "audio"
    assert signal_of([tmp_path / "clips"]) == "video"
    assert Sound(0.5).read(Row(str(clip))).shape == (1, 8000)
    assert {signal.key for signal in SIGNALS} == {"video", "image", "points", "audio"}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(UserError, match="no video and no image and no points and no audio files"):
        signal_of([tmp_path / "notes"])


def test_pictures(file, tmp_path):
    (drawn,) = Sound(4.0, 8000).drawn(Sound(4.0, 8000).views(Row(str(file)))[0], (), ())
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] == 128 and 400 <= drawn.shape[1] <= 600  # noqa: PT018
    low, high = (write_sound(tmp_path / f"{hz}.wav", tone(1.0, 8000, hz)) for hz in (200.0, 3000.0))
    rows = [int(Sound.glimpse(path, 0.0, 1.0).astype(int).sum(axis=(1, 2)).argmax()) for path in (low, high)]
    assert rows[0] > 90 > 40 > rows[1]  # low notes at the bottom
    for length in (1, 10, 100):
        assert Sound(length / 8000, 8000).drawn(torch.zeros(1, length), (), ()).shape[-1] == 3
