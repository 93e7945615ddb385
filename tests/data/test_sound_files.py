"""Folders of sound: checked, prepared."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import chirp, tone, write_clip, write_sound

from unveil import verbs
from unveil.data import Manifest, SoundReader, VideoReader, prepare
from unveil.errors import UserError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "sounds"
    for name in ("high", "low"):
        (folder / name).mkdir(parents=True)
    write_sound(folder / "high/a.mp3", chirp(1.5, 44100), 44100)
    write_sound(folder / "high/b.wav", np.stack([tone(0.5, 48000), tone(0.5, 48000, 880)]), 48000, codec="pcm_s24le")
    write_sound(folder / "low/c.wav", tone(0.75, 8000), 8000, codec="pcm_u8")
    write_sound(folder / "low/silent.flac", np.zeros(4000))
    write_sound(folder / "low/loud.wav", tone(0.25) * 8, codec="pcm_f32le")
    write_clip(folder / "low/film.mp4", [0.4], [0.4], seconds=0.8, sound=(0.2, 0.8))
    (folder / "low/broken.ogg").write_bytes(b"OggS no sound")
    return folder


def test_check(folder):
    checked = verbs.check(folder, quiet=True, workers=1)
    rows = {row["path"].split("sounds/")[1]: row for row in checked.manifest.table.to_pylist()}
    wav = rows["high/b.wav"]
    assert (wav["duration"], wav["rate"], wav["channels"], wav["has_audio"]) == (0.5, 48000, 2, True)
    assert (wav["fps"], wav["width"], wav["frames"], wav["error"]) == (None, None, None, None)
    assert (rows["low/c.wav"]["rate"], rows["low/c.wav"]["channels"]) == (8000, 1)
    assert rows["high/a.mp3"]["duration"] == pytest.approx(1.5, abs=0.03)
    assert (rows["low/film.mp4"]["frames"], rows["low/film.mp4"]["rate"]) == (
        20,
        None,
    )  # a video is not its sound track
    (bad,) = checked.bad
    assert bad[0].endswith("broken.ogg")
    assert [path.rsplit("/")[-1] for path in checked.silent] == ["silent.flac"]
    assert [path.rsplit("/")[-1] for path in checked.clipped] == ["loud.wav"]
    said = "\n".join(text for _, text in checked.sentences())
    assert "without a sound, from beginning to end: 1" in said
    assert "louder than full scale" in said
    # Old manifests know nothing of peaks: they are read, and made anew by the next check.
    table = Manifest.load(folder / "manifest.parquet").table
    assert {"rate", "channels", "peak"} <= set(table.column_names)


def test_prepare(folder, tmp_path):
    out = tmp_path / "made"
    done = prepare.prepare(folder, out, prepare.Encoding(rate=12000), workers=1, quiet=True)
    assert [path.rsplit("/")[-1] for path, _ in done.bad] == ["broken.flac"]
    for name, seconds, rate in (("high/a.flac", 1.5, 12000), ("high/b.flac", 0.5, 12000), ("low/c.flac", 0.75, 8000)):
        with SoundReader(out / name) as sound:
            assert (sound.rate, sound.channels) == (rate, 1)
            assert sound.duration == pytest.approx(seconds, abs=0.03)
    with SoundReader(folder / "high/b.wav") as before, SoundReader(out / "high/b.flac") as after:
        assert (before.read(0, 0.5, 12000) - after.read(0, 0.5, 12000)).abs().max() <= 2**-15
    with SoundReader(folder / "low/film.mp4") as before, SoundReader(out / "low/film.mp4") as after:  # keeps its sound
        assert (before.read(0, 0.8, 16000) - after.read(0, 0.8, 16000)).abs().max() < 1e-3
    with VideoReader(out / "low/film.mp4") as video:
        assert video.has_audio
    again = prepare.prepare(folder, out, prepare.Encoding(rate=12000), workers=1, quiet=True)
    assert (again.made, again.unchanged) == (0, 6)
    other = prepare.prepare(folder, out, prepare.Encoding(rate=8000), workers=1, quiet=True)
    assert other.made == 6
    with pytest.raises(UserError, match=r"--rate 50: between 100 and 655350"):
        verbs.prepare(folder, out=out, rate=50, quiet=True)
