"""Random access and streams equal decoding everything from the start with PyAV, whatever the coder did."""

from __future__ import annotations

import math
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from media import numbered_frames, write_video

from unveil.data import VideoReader, frames, read_frames

os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes its settings to the terminal


def oracle(path: Path) -> tuple[list[float], torch.Tensor]:
    """(times, frames) of a full decode, without anything of the library."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        base, first = float(decoded[0].time_base or 1), decoded[0].pts or 0
        times = [(f.pts - first) * base if f.pts is not None else math.nan for f in decoded]
        return times, torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in decoded]))


@st.composite
def coders(draw) -> dict:
    """Settings of `write_video` without the frames."""
    codec = draw(st.sampled_from(["libx264"] * 4 + ["libx265"] * 2 + ["libvpx-vp9", "mpeg4", "libsvtav1"]))
    gop = draw(st.integers(1, 30))
    bframes = draw(st.integers(0, 5))
    name = "a.mp4"
    options: dict[str, str] = {}
    if codec == "libx264":
        name = draw(st.sampled_from(["a.mp4", "a.mov", "a.mkv", "a.ts", "a.avi", "a.flv"]))
        pyramid = draw(st.sampled_from(["none", "strict", "normal"]))
        interlaced = draw(st.sampled_from(["", "", "", ":tff=1", ":fake-interlaced=1"]))
        options = {
            "preset": draw(st.sampled_from(["ultrafast", "veryfast"])),
            "x264-params": f"b-pyramid={pyramid}:ref={draw(st.integers(1, 6))}:weightp={draw(st.integers(0, 2))}"
            f":open-gop={draw(st.integers(0, 1))}:b-adapt={draw(st.integers(0, 2))}:slices={draw(st.integers(1, 3))}"
            f":aud={draw(st.integers(0, 1))}"
            f":nal-hrd={draw(st.sampled_from(['none', 'vbr:vbv-maxrate=900:vbv-bufsize=900']))}"
            f":intra-refresh={draw(st.sampled_from([0, 0, 0, 1]))}:threads=1:keyint={gop}{interlaced}",
        }
    elif codec == "libx265":
        name = draw(st.sampled_from(["a.mp4", "a.mkv", "a.ts"]))
        options = {
            "preset": "ultrafast",
            "x265-params": f"log-level=none:pools=none:frame-threads=1:rc-lookahead=20:keyint={gop}:min-keyint=1:bframes={bframes}"
            f":b-pyramid={draw(st.integers(0, 1))}:b-adapt={draw(st.integers(0, 2))}"
            f":open-gop={draw(st.integers(0, 1))}:temporal-layers={draw(st.sampled_from([1, 1, 3]))}"
            f":ref={draw(st.integers(1, 4))}:repeat-headers={int(name == 'a.ts')}:hash={draw(st.integers(0, 1))}",
        }
    elif codec == "libvpx-vp9":
        name = draw(st.sampled_from(["a.webm", "a.mp4", "a.mkv"]))
        options = {"auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "good", "cpu-used": "8"}
    elif codec == "libsvtav1":
        name = draw(st.sampled_from(["a.webm", "a.mp4"]))
        options = {"preset": "13", "svtav1-params": "lp=1"}
    else:
        name = draw(st.sampled_from(["a.mp4", "a.mkv", "a.avi"]))
        bframes = min(bframes, 3)
    return {"name": name, "codec": codec, "gop": gop, "bframes": bframes, "options": options}


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(coder=coders(), count=st.integers(1, 70), data=st.data())
def test_equals_decoding_everything(tmp_path, coder, count, data):
    coder = dict(coder)
    size = (64, 96) if coder["codec"] in ("libx265", "libsvtav1") else (48, 64)
    try:
        path = write_video(tmp_path / coder.pop("name"), numbered_frames(count, *size), **coder)
        times, expected = oracle(path)
    except av.FFmpegError:  # times that the muxer does not take, a transport stream too short for FFmpeg
        reject()
    if path.suffix == ".avi":  # holds no times of presentation, and FFmpeg makes some up
        times = [n / 16 for n in range(len(expected))]
    ends = [*times[1:], times[-1] + 1 / 16]
    indices = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=8))
    part = data.draw(st.floats(0, 0.9))
    wanted = [times[i] + part * (ends[i] - times[i]) for i in indices]
    with VideoReader(path) as video:  # one reader: what is left of one request must not reach into the next
        assert torch.equal(video.read(wanted), expected[indices])
        assert torch.equal(video.read(wanted[::-1]), expected[indices[::-1]])
    assert torch.equal(read_frames(path, indices=indices), expected[indices])
    stride, begin = data.draw(st.integers(1, 9)), data.draw(st.integers(0, len(expected) - 1))
    found = list(frames(path, stride=stride, start=times[begin] + 1e-4))
    places = range(begin, len(expected), stride)
    assert torch.equal(torch.stack([f for _, f in found]), expected[list(places)])
    assert [t for t, _ in found] == pytest.approx([times[i] for i in places])
    rate = data.draw(st.sampled_from([16, 8, 3, 1, 0.3]))
    for time, frame in frames(path, fps=rate):
        shown = max(i for i, t in enumerate(times) if t <= time + 1e-3)
        assert torch.equal(frame, expected[shown])
