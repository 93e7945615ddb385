"""Frames of real video files, against an oracle that decodes everything from the start with PyAV alone."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import frame_number, numbered_frames, write_video

from unveil.data import VideoReader, frames, probe, read_frames, windows
from unveil.errors import DecodeError

CODECS = {
    "h264.mp4": {"codec": "libx264"},
    "h264.mkv": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264"},
    "h264.h264": {"codec": "libx264"},  # bare: no times at all
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4"},  # decoding times only
    "vp9.webm": {"codec": "libvpx-vp9"},
    "gif.gif": {"codec": "gif", "fps": 20},
    "apng.apng": {"codec": "apng", "pix_fmt": "rgb24"},
}


def oracle(path: Path) -> tuple[list[float], torch.Tensor]:
    """(times, frames) of a full decode, without anything of the library."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        base = float(decoded[0].time_base or 1)
        first = decoded[0].pts or 0
        times = [(f.pts - first) * base if f.pts is not None else math.nan for f in decoded]
        return times, torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in decoded]))


def numbers(clip: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in clip]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(CODECS)),
    count=st.integers(1, 40),
    gop=st.integers(1, 15),
    bframes=st.integers(0, 3),
    open_gop=st.booleans(),
    size=st.sampled_from([(48, 64), (36, 50), (66, 34)]),
    data=st.data(),
)
def test_random_access_equals_decoding_everything(tmp_path, name, count, gop, bframes, open_gop, size, data):
    options = {"x264-params": f"open-gop={int(open_gop)}"} if "h264" in name else None
    settings_ = CODECS[name] | {"gop": gop, "bframes": bframes if name[0] in "hm" else 0, "options": options}
    path = write_video(tmp_path / name, numbered_frames(count, *size), **settings_)
    times, expected = oracle(path)
    indices = data.draw(st.lists(st.integers(0, len(expected) + 2), min_size=1, max_size=5))
    clamped = [min(i, len(expected) - 1) for i in indices]
    assert torch.equal(read_frames(path, indices=indices), expected[clamped])
    if not math.isnan(times[0]):
        ends = [*times[1:], times[-1] + 0.05]
        # Within half a tick of the clock (a tenth of a frame, in a GIF at 20 fps) a time means the next frame already.
        part = data.draw(st.floats(0, 0.89))
        wanted = [times[i] + part * (ends[i] - times[i]) for i in clamped]
        assert torch.equal(read_frames(path, times=wanted), expected[clamped])
    assert torch.equal(read_frames(path), expected)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_probe(tmp_path, name):
    path = write_video(
        tmp_path / name, numbered_frames(30, 34, 50), bframes=2 if name[0] in "hm" else 0, **CODECS[name]
    )
    info = probe(path)
    fps = CODECS[name].get("fps", 16)
    assert (info.width, info.height, info.rotation, info.has_audio) == (50, 34, 0, False)
    assert info.fps == pytest.approx(fps, rel=1e-3)
    assert info.duration == pytest.approx(30 / fps, abs=0.01)
    assert info.num_frames == 30
    assert info.path == str(path)


def test_frame_n_is_shown_at_n_over_fps(tmp_path):
    # Matroska rounds to milliseconds: at 30 fps frame 2 is stamped 67 ms, later than 2/30 s.
    path = write_video(tmp_path / "a.mkv", numbered_frames(40), fps=30)
    assert numbers(read_frames(path, times=[n / 30 for n in range(40)])) == list(range(40))
    assert numbers(read_frames(path, times=[n / 30 - 0.002 for n in range(1, 40)])) == list(range(39))


def test_any_order_duplicates_and_clamping(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), bframes=2)
    assert numbers(read_frames(path, times=[1.0, 0.0, 99.0, 1.0, -5.0])) == [16, 0, 19, 16, 0]
    assert numbers(read_frames(path, indices=[3, 3, 500, 0])) == [3, 3, 19, 0]
    with pytest.raises(ValueError):
        read_frames(path, indices=[-1])
    with pytest.raises(ValueError):
        read_frames(path, times=[0.0], indices=[0])
    with pytest.raises(ValueError):
        read_frames(path, times=[])


def test_variable_frame_rate(tmp_path):
    pts = [0, 100, 110, 120, 700, 1500]
    path = write_video(tmp_path / "a.mp4", numbered_frames(6), pts=pts, time_base=Fraction(1, 1000))
    assert numbers(read_frames(path, times=[0.05, 0.1, 0.115, 0.4, 0.69, 0.71, 1.49, 1.6])) == [0, 1, 2, 3, 3, 4, 4, 5]
    sampled = [(round(t, 3), frame_number(f)) for t, f in frames(path, fps=4)]
    assert sampled[:7] == [(0.0, 0), (0.25, 3), (0.5, 3), (0.75, 4), (1.0, 4), (1.25, 4), (1.5, 5)]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_display_matrix_is_applied(tmp_path, rotation, mirror):
    frame = torch.zeros(3, 32, 48, 3, dtype=torch.uint8)
    frame[:, :16, :24] = torch.tensor([250, 0, 0], dtype=torch.uint8)  # red, top left
    frame[:, :16, 24:] = torch.tensor([0, 250, 0], dtype=torch.uint8)  # green, top right
    path = write_video(tmp_path / "a.mp4", frame, rotation=rotation, mirror=mirror)
    # (x, y) M is where a pixel is shown; the muxer's flip negates the column of x, so it mirrors what was turned.
    expected = np.rot90(frame[0].numpy(), rotation // 90).astype(int)
    expected = expected[:, ::-1] if mirror else expected
    shown = read_frames(path, times=[0.0])[0].numpy().astype(int)
    assert shown.shape == expected.shape
    inner = np.abs(shown - expected).max(-1)
    assert np.median(inner) < 25
    assert (inner < 60).mean() > 0.8  # the rest are edges smeared by chroma subsampling
    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    if not mirror:
        assert info.rotation == -rotation % 360


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grey.mp4", {"pix_fmt": "gray"}),
        ("ten.mp4", {"pix_fmt": "yuv420p10le"}),
        ("lossless.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("alpha.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
        ("alpha.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p"}),
        ("odd.mp4", {"codec": "libx264", "pix_fmt": "yuv444p"}),
    ],
)
def test_pixel_formats(tmp_path, name, options):
    size = (35, 53) if name.startswith("odd") else (32, 48)
    source = numbered_frames(5, *size)
    if name.startswith("alpha"):
        source = torch.cat([source, torch.full((5, *size, 1), 255, dtype=torch.uint8)], 3)
    path = write_video(tmp_path / name, source, **options)
    clip = read_frames(path, indices=[4, 0])
    assert clip.dtype == torch.uint8
    assert clip.shape == (2, *size, 3)
    expected = source[[4, 0], ..., :3].float()
    if name.startswith("grey"):
        expected = (expected * torch.tensor([0.299, 0.587, 0.114])).sum(3, keepdim=True).expand(-1, -1, -1, 3)
        expected = (expected - 16) * 255 / 219  # written as it is, read as the video range that the file is marked with
    assert (clip.float() - expected).abs().mean() < 6


def test_size_change_on_the_way(tmp_path):
    small = write_video(tmp_path / "a.ts", numbered_frames(8, 32, 48))
    large = write_video(tmp_path / "b.ts", numbered_frames(16, 64, 96)[8:])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert read_frames(both).shape[1:] == (32, 48, 3)


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(1))
    assert read_frames(path, times=[0.0, 3.0]).shape == (2, 48, 64, 3)
    assert len(list(windows(path, 4, 2))) == 1
    assert len(list(frames(path))) == 1


def test_sound_cover_and_strange_names(tmp_path):
    path = tmp_path / "12:30 %d é.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("aac", rate=8000)
        for frame in numbered_frames(5, 32, 32).numpy():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    assert probe(path).has_audio
    assert len(read_frames(path)) == 5


def test_what_cannot_be_decoded(tmp_path):
    with pytest.raises(DecodeError, match=r"missing\.mp4.*No such file"):
        read_frames(tmp_path / "missing.mp4", times=[0.0])
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(DecodeError, match=r"text\.mp4: .*Invalid data"):
        probe(text)
    with pytest.raises(DecodeError):
        read_frames(tmp_path, times=[0.0])
    whole = write_video(tmp_path / "whole.mp4", numbered_frames(30))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # the index stands at the end
    with pytest.raises(DecodeError, match=r"cut\.mp4"):
        read_frames(cut, times=[0.0])
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DecodeError, match="no video"):
        probe(sound)


def test_a_broken_packet_is_an_error_not_a_loop(tmp_path):
    path = write_video(tmp_path / "a.webm", numbered_frames(30), codec="libvpx-vp9", gop=30)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][15]
        content = bytes(packet)
    broken = tmp_path / "broken.webm"
    broken.write_bytes(path.read_bytes().replace(content, b"\xff" * len(content)))
    assert numbers(read_frames(broken, times=[0.0, 0.5])) == [0, 8]  # what lies before it is fine
    with pytest.raises(DecodeError, match=r"broken\.webm: "):
        read_frames(broken, times=[1.5])


def test_seeking_decodes_little(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(200), gop=10)
    decoded = 0
    original = VideoReader._decoded

    def counted(self, packets, lookahead):
        nonlocal decoded
        packets = list(packets)
        decoded += sum(packet is not None for packet in packets)
        return original(self, packets, lookahead)

    monkeypatch.setattr(VideoReader, "_decoded", counted)
    with VideoReader(path) as video:
        assert numbers(video.read([19 / 16, 101 / 16, 195 / 16])) == [19, 101, 195]
        assert decoded == 10 + 2 + 6  # from the key frame to the wanted one, for each
        with pytest.raises(ValueError, match="no frame was asked"):
            video.read([])
    with pytest.raises(ValueError, match="closed"):
        next(video.decode())


def test_frame_threads_give_the_same(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), bframes=2)
    times = [n / 16 for n in range(5, 40, 3)]
    assert torch.equal(read_frames(path, times=times), read_frames(path, times=times, threads=3, thread_type="FRAME"))


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "gif.gif", "mpeg4.avi", "h264.h264"])
def test_stream(tmp_path, name):
    path = write_video(tmp_path / name, numbered_frames(40), **CODECS[name])
    fps = CODECS[name].get("fps", 16)
    everything = list(frames(path))
    assert numbers(torch.stack([f for _, f in everything])) == list(range(40))
    assert all(a < b for (a, _), (b, _) in pairwise(everything))
    part = [(round(t * fps), frame_number(f)) for t, f in frames(path, stride=3, start=10 / fps, end=30 / fps)]
    assert part == [(n, n) for n in range(10, 30, 3)]
    assert [frame_number(f) for _, f in frames(path, fps=fps / 2, start=0.5 / fps)] == list(range(0, 40, 2))
    assert [frame_number(f) for _, f in frames(path, start=10.4 / fps, end=11.5 / fps)] == [10, 11]
    assert [frame_number(f) for _, f in frames(path, start=39.5 / fps)] == [39]
    with pytest.raises(ValueError):
        next(frames(path, fps=0))
    with pytest.raises(ValueError):
        next(frames(path, stride=0))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 60),
    length=st.integers(1, 8),
    stride=st.integers(1, 4),
    hop=st.none() | st.integers(1, 40),
    start=st.none() | st.integers(0, 70),
    stop=st.none() | st.integers(1, 70),
)
def test_windows(tmp_path_factory, count, length, stride, hop, start, stop):
    folder = tmp_path_factory.getbasetemp() / "windows"
    folder.mkdir(exist_ok=True)
    path = folder / f"{count}.mp4"
    if not path.exists():
        write_video(path, numbered_frames(count, 32, 64))
    begin, end = start or 0, min(count, stop or count)
    if stop is not None and stop <= begin:
        return
    found = list(
        windows(path, length, stride, hop and hop / 16, start and start / 16, None if stop is None else stop / 16)
    )
    span = length * stride
    step = hop or span
    # As a whole video in memory would be cut.
    expected, first = [], begin
    while not expected or (first < end and first - step + span < end):
        expected.append([max(min(first + i * stride, end - 1), min(begin, count - 1)) for i in range(length)])
        # Padding repeats the window's own last frame, the last on its grid before the end.
        inside = [n for n in range(first, end, stride)][:length]
        if inside:
            expected[-1] = inside + [inside[-1]] * (length - len(inside))
        first += step
    assert [numbers(clip) for _, _, clip in found] == expected
    for number, (since, until, _) in enumerate(found):
        assert since == pytest.approx((begin + number * step) / 16)
        assert until == pytest.approx(max(min(begin + number * step + span, end), begin) / 16, abs=1e-6)


def test_windows_of_a_long_video_stay_small(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(250, 96, 128), gop=50)
    whole = 250 * 96 * 128 * 3
    next(windows(path, 4, 2))
    tracemalloc.start()
    count = sum(1 for _ in windows(path, 8, 1, hop=4 / 16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 50
    assert peak < whole / 5
    with pytest.raises(ValueError):
        next(windows(path, 0, 1))
