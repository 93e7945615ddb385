"""Sound of files: what is cut is where it was put, however it was encoded, and however it is reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import CODECS, chirp, tone, write_clip, write_sound

from unveil.data import SoundReader, VideoReader
from unveil.errors import DecodeError

SECONDS = 12.0
EXACT = {".wav", ".flac", ".aiff", ".au", ".w64", ".caf"}
WITHOUT_DELAY = EXACT | {
    ".mp3",
    ".m4a",
    ".ogg",
    ".opus",
    ".mka",
    ".mkv",
}  # whose files say what their codec adds in front


def rate_of(suffix: str) -> int:
    return 48000 if CODECS[suffix] in ("libopus", "ac3") else 44100


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    return {s: write_sound(folder / f"a{s}", chirp(SECONDS, rate_of(s)), rate_of(s)) for s in CODECS}


@pytest.mark.parametrize("suffix", sorted(WITHOUT_DELAY))
def test_samples_are_where_they_were_put(files, suffix):
    rate = rate_of(suffix)
    with SoundReader(files[suffix]) as sound:
        x = sound.read(0, SECONDS, rate)
    assert (x.dtype, x.shape) == (torch.float32, (1, round(SECONDS * rate)))
    error = (x[0].numpy() - chirp(SECONDS, rate))[1000:-3000]
    if suffix in EXACT:
        assert np.abs(error).max() <= 2**-15
    else:  # a shift of one sample would be an error of 0.05 and more
        assert np.sqrt(np.mean(error**2)) < 0.03


@pytest.mark.parametrize(
    "suffix", sorted(set(CODECS) - {".ac3"})
)  # whose decoder adds noise that depends on what was before
@pytest.mark.parametrize("rate", [None, 16000])
def test_a_stretch_that_is_sought_is_the_one_that_is_reached(files, suffix, rate):
    rate = rate or rate_of(suffix)
    with SoundReader(files[suffix]) as sound:
        whole = sound.read(0, SECONDS, rate)
        for start in (0.3, 5.1234, 8.0, 11.7):
            x = sound.read(start, start + 0.25, rate)
            assert torch.equal(x, whole[:, round(start * rate) :][:, : x.shape[1]]), start


def test_flashes_and_beeps_coincide(tmp_path):
    moments = [1.0, 2.2, 3.4]
    for name, sound, picture, codec, bframes in [
        ("a.mp4", None, 0.0, "aac", 0),
        ("late.mp4", (0.8, 4.0), 0.0, "aac", 2),
        ("late.mkv", (0.8, 4.0), 0.0, "libmp3lame", 2),
        ("early.mkv", None, 0.52, "aac", 0),  # the sound begins before the pictures, which count from their first
        ("late.ts", (0.8, 4.0), 0.4, "aac", 2),
        ("a.avi", None, 0.0, "pcm_s16le", 0),
        ("b.avi", None, 0.0, "pcm_s16le", 2),
    ]:
        path = write_clip(tmp_path / name, moments, moments, sound=sound, picture=picture, codec=codec, bframes=bframes)
        with SoundReader(path) as reader, VideoReader(path) as video:
            shown = [time for time, frame in video.decode() if video.rgb(frame).mean() > 128]
            x = reader.read(0, reader.duration, 48000)[0].abs() > 0.2
            loud = torch.nonzero(x)[:, 0] / 48000
            heard = [float(t) for t, before in zip(loud, [-1.0, *loud.tolist()], strict=False) if t - before > 0.1]
            assert shown == pytest.approx([moment - picture for moment in moments], abs=0.002), name
            assert heard == pytest.approx(shown, abs=0.004), name  # lossy codecs smear what is sudden
            if sound is not None:
                late = sound[0] - picture
                silent = reader.read(0, late - 0.05, 16000)
                assert silent.shape == (1, round((late - 0.05) * 16000)), name
                assert not silent.any(), name


@settings(max_examples=60, deadline=None)
@given(start=st.floats(-2, 6), length=st.floats(0, 3), rate=st.sampled_from([8000, 16000, 22050, 44100, 48000, 96000]))
def test_any_cut_is_a_part_of_the_whole(files, start, length, rate):
    with SoundReader(files[".wav"]) as sound:
        x = sound.read(start, start + length, rate)
        assert x.shape == (1, max(0, round((start + length - start) * rate)))
        whole = sound.read(-3, 14, rate)
        first = round(start * rate) - round(-3 * rate)
        assert torch.equal(x, whole[:, first : first + x.shape[1]])


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 192000])
def test_resampled_tones_keep_their_times(tmp_path, rate):
    path = write_sound(tmp_path / "a.flac", tone(2, rate, 440), rate)
    with SoundReader(path) as sound:
        x = sound.read(0.5, 1.5, 16000)[0].numpy()
        total = sum(map(len, sound.blocks(16000)))
    assert np.abs(x - tone(2, 16000, 440)[8000:24000]).max() < 2e-3
    assert total == 32000


def test_channels_are_averaged(tmp_path):
    for layout, count in (("stereo", 2), ("5.1", 6), ("7.1", 8)):
        x = np.stack([tone(0.5, 16000, 300 + 100 * n) for n in range(count)])
        path = write_sound(tmp_path / f"{count}.wav", x, layout=layout)
        with SoundReader(path) as sound:
            assert sound.channels == count
            assert np.abs(sound.read(0, 0.5, 16000)[0].numpy() - x.mean(axis=0)).max() < 1e-4


@pytest.mark.parametrize(
    ("codec", "error"), [("pcm_u8", 2**-7), ("pcm_s24le", 2**-15), ("pcm_f32le", 0), ("pcm_alaw", 0.02)]
)
def test_formats_of_samples(tmp_path, codec, error):
    path = write_sound(tmp_path / "a.wav", chirp(0.5), codec=codec)
    with SoundReader(path) as sound:
        assert np.abs(sound.read(0, 0.5, 16000)[0].numpy() - chirp(0.5)).max() <= error


def test_sparse_files(tmp_path):
    one = write_sound(tmp_path / "one.wav", np.array([0.5]))
    with SoundReader(one) as sound:
        assert sound.duration == 1 / 16000
        assert sound.read(0, 0.001, 16000)[0].tolist() == [0.5] + [0.0] * 15
        assert sound.read(0, 0.001, 48000).shape == (1, 48)
    with SoundReader(write_sound(tmp_path / "silent.wav", np.zeros(1600))) as sound:
        assert not sound.read(0, 0.1, 8000).any()
    with pytest.raises(DecodeError, match=r"none\.wav: holds not a single sample"):
        SoundReader(write_sound(tmp_path / "none.wav", np.zeros(0))).read(0, 1, 16000)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(DecodeError, match=r"empty\.wav: is empty"):
        SoundReader(tmp_path / "empty.wav")
    with pytest.raises(DecodeError, match=r"No such file"):
        SoundReader(tmp_path / "nowhere.wav")
    with pytest.raises(DecodeError, match=r"is a folder"):
        SoundReader(tmp_path)


def test_videos_without_sound(tmp_path):
    from media import numbered_frames, write_video

    with pytest.raises(DecodeError, match=r"a\.mp4: holds no sound"):
        SoundReader(write_video(tmp_path / "a.mp4", numbered_frames(8)))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_a_file_that_is_cut_short_says_so(files, tmp_path, suffix):
    whole = files[suffix].read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError, match=r"cut"), SoundReader(cut) as sound:
        sound.read(0, SECONDS, 16000)
