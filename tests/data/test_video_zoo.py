"""Files as they are found: each frame is the one that decoding from the start gives, at the time that a player shows it."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import numbered_frames, write_video

from unveil.data import frames, probe, read_frames, windows


def everything(path: Path) -> tuple[list[float], torch.Tensor]:
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        base, first = float(decoded[0].time_base or 1), decoded[0].pts
        times = [(f.pts - first) * base if f.pts is not None else np.nan for f in decoded]
        return times, torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in decoded]))


def check(path: Path, count: int, fps: float = 16) -> None:
    """All ways of reading agree with the oracle."""
    times, expected = everything(path)
    assert len(expected) == count
    if np.isnan(times[0]):
        times = [n / fps for n in range(count)]
    places = [count - 1, 0, count // 2, count // 3]
    assert torch.equal(read_frames(path), expected)
    assert torch.equal(read_frames(path, times=[times[i] + 0.3 / fps for i in places]), expected[places])
    assert torch.equal(read_frames(path, indices=places), expected[places])
    for stride in (1, 3):
        found = list(frames(path, stride=stride))
        assert torch.equal(torch.stack([frame for _, frame in found]), expected[::stride])
        assert [time for time, _ in found] == pytest.approx(times[::stride], abs=1e-6)
    assert len(list(windows(path, 4, 2))) >= 1


def remuxed(source: Path, path: Path, keep=lambda packet: True, shift: int = 0, **options) -> Path:
    """The packets of `source` in another container, those that `keep` picks, their times shifted."""
    with av.open(str(source)) as read, av.open(str(path), "w", **options) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is None or not keep(packet):
                continue
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            write.mux(packet)
    return path


X264 = {"codec": "libx264", "bframes": 3, "options": {"preset": "veryfast", "x264-params": "b-pyramid=normal:ref=3"}}
X265 = {
    "codec": "libx265",
    "bframes": 3,
    "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"},
}


@pytest.mark.parametrize("coder", [X264, X265], ids=["h264", "hevc"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fragmented.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}),
        ("negative.mp4", {"container_options": {"movflags": "negative_cts_offsets"}}),
        ("faststart.mov", {"container_options": {"movflags": "faststart"}}),
        ("plain.mkv", {}),
        ("plain.ts", {}),
        ("plain.m2ts", {}),
    ],
)
def test_containers(tmp_path, coder, name, options):
    coder = {**coder, "options": dict(coder["options"])}
    if coder["codec"] == "libx265" and name.endswith("ts"):
        coder["options"]["x265-params"] += ":repeat-headers=1"
    check(write_video(tmp_path / name, numbered_frames(40, 64, 96), gop=13, **coder, **options), 40)


def test_live_matroska_has_neither_duration_nor_index(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        seek = None  # type: ignore[assignment]

    whole = write_video(tmp_path / "a.mp4", numbered_frames(40), gop=13, **X264)
    pipe = Pipe()
    with av.open(str(whole)) as read, av.open(pipe, "w", format="matroska", options={"live": "1"}) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    path = tmp_path / "live.mkv"
    path.write_bytes(pipe.getvalue())
    with av.open(str(path)) as container:
        assert container.duration is None
    check(path, 40)
    info = probe(path)
    assert (info.num_frames, info.duration) == (40, pytest.approx(2.5, abs=0.01))


@pytest.mark.parametrize("bframes", [0, 3])
def test_a_bare_stream(tmp_path, bframes):
    check(write_video(tmp_path / "a.h264", numbered_frames(40), bframes=bframes), 40)


def test_a_clock_that_starts_late(tmp_path):
    whole = write_video(tmp_path / "a.mp4", numbered_frames(40), gop=13, **X264)
    with av.open(str(whole)) as container:
        ticks = round(5 / container.streams.video[0].time_base)
    for name in ("late.mkv", "late.ts", "late.mp4", "late.mov"):
        path = remuxed(whole, tmp_path / name, shift=ticks)
        check(path, 40)
        assert probe(path).duration == pytest.approx(2.5, abs=0.2), name


def test_a_start_that_an_edit_list_cuts_away(tmp_path):
    # Times before zero are written as an edit list: those frames are decoded, being referred to, but never shown.
    whole = write_video(tmp_path / "a.mp4", numbered_frames(40), gop=40, **X264)
    with av.open(str(whole)) as container:
        ticks = round(10 / 16 / container.streams.video[0].time_base)
    path = remuxed(whole, tmp_path / "cut.mp4", shift=-ticks, options={"avoid_negative_ts": "disabled"})
    with av.open(str(path)) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    shown, _ = everything(path)
    check(path, len(shown))
    assert 28 <= len(shown) <= 31


def test_open_groups_of_pictures_cut_at_a_key_frame(tmp_path):
    for coder, params in ((X264, "x264-params"), (X265, "x265-params")):
        options = coder["options"] | {
            params: coder["options"][params] + ":open-gop=1:keyint=10:min-keyint=10:bframes=3"
        }
        whole = write_video(tmp_path / "a.mp4", numbered_frames(50, 64, 96), **{**coder, "options": options})
        check(whole, 50)
        with av.open(str(whole)) as container:
            keys = [packet.dts for packet in container.demux(video=0) if packet.is_keyframe and packet.dts is not None]
        assert len(keys) > 2
        path = remuxed(whole, tmp_path / "cut.mkv", keep=lambda packet, since=keys[1]: packet.dts >= since)
        shown, _ = everything(path)
        check(path, len(shown))


def test_variable_frame_rate_with_b_frames(tmp_path):
    rng = np.random.default_rng(0)
    pts = np.cumsum(rng.choice([10, 33, 40, 500], 60)).tolist()
    for name in ("a.mp4", "a.mkv"):
        path = write_video(tmp_path / name, numbered_frames(60), gop=17, pts=pts, time_base=Fraction(1, 1000), **X264)
        times, expected = everything(path)
        asked = rng.uniform(0, times[-1], 40)
        shown = [int(np.searchsorted(times, time + 1e-4, side="right")) - 1 for time in asked]
        assert torch.equal(read_frames(path, times=asked.tolist()), expected[shown])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_interlaced(tmp_path, name):
    options = {"preset": "veryfast", "x264-params": "tff=1:b-pyramid=normal"}
    check(write_video(tmp_path / name, numbered_frames(40, 64, 96), gop=13, bframes=3, options=options), 40)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "libx264"}), ("a.mkv", {"codec": "libx264"}), ("a.avi", {"codec": "mpeg4"}),
        ("a.webm", {"codec": "libvpx-vp9"}), ("a.gif", {"codec": "gif", "fps": 20}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}), ("b.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("b.mov", {"codec": "qtrle", "pix_fmt": "rgb24"}),
    ],
)  # fmt: skip
def test_one_frame_and_a_few(tmp_path, name, options):
    for count in (1, 2, 5):
        path = write_video(tmp_path / name, numbered_frames(count), **options)
        times, expected = everything(path)
        assert len(expected) == count
        assert torch.equal(read_frames(path), expected)
        assert torch.equal(read_frames(path, indices=[count - 1, 0]), expected[[count - 1, 0]])
        assert torch.equal(read_frames(path, times=[times[-1] + 1e-3]), expected[-1:])
        assert len(list(windows(path, 3, 2))) >= 1


def test_a_long_group_of_pictures_stays_small_in_memory(tmp_path, monkeypatch):
    """600 frames without a second key frame: what waits to be decided is bounded, and what waits to be decoded too."""
    from unveil.data import lookahead

    path = write_video(tmp_path / "a.mkv", numbered_frames(600, 32, 64), gop=600)
    waiting = []
    original = lookahead.Lookahead.add

    def add(self, packet):
        out = original(self, packet)
        waiting.append((len(self._queue), len(self._pending)))
        return out

    monkeypatch.setattr(lookahead.Lookahead, "add", add)
    assert torch.equal(read_frames(path, times=[599.5 / 16]), everything(path)[1][599:])
    assert max(queue for queue, _ in waiting) <= 20
    assert 200 < max(pending for _, pending in waiting) <= 256
