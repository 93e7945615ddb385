"""Files that end early, lie about themselves, or are no files at all: a DecodeError that says so, at once."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import av
import numpy as np
import pytest
from media import frame_number, numbered_frames, write_video

from unveil.data import Dense, Row, Video, frames, probe, read_frames, read_image, windows
from unveil.errors import DecodeError


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.avi", "libx264")]
)
@pytest.mark.parametrize("bframes", [0, 2])
def test_cut_short(tmp_path, name, codec, bframes):
    path = cut(write_video(tmp_path / name, numbered_frames(96), codec=codec, bframes=bframes), 0.5)
    assert frame_number(read_frames(path, times=[0.5])[0]) == 8  # what is there is read
    pattern = r"ends after \d\.\d s of 6\.[01] s: the file is cut short"
    with pytest.raises(DecodeError, match=pattern):
        read_frames(path, times=[0.5, 5.9])
    with pytest.raises(DecodeError, match=pattern):
        read_frames(path, indices=[95])
    with pytest.raises(DecodeError, match=pattern):
        read_frames(path)
    with pytest.raises(DecodeError, match=pattern):
        list(windows(path, 4, 2))
    for options in ({}, {"fps": 4.0}, {"stride": 3}):
        with pytest.raises(DecodeError, match=pattern):
            list(frames(path, **options))
        assert len(list(frames(path, end=1.0, **options))) > 2
    with pytest.raises(DecodeError, match=pattern):
        Video(Dense(4, 1)).views(Row(str(path)), 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_mp4_with_its_index_in_front(tmp_path, share):
    path = write_video(tmp_path / "a.mp4", numbered_frames(96), container_options={"movflags": "faststart"})
    with pytest.raises(DecodeError):
        read_frames(cut(path, share))


def test_a_transport_stream_does_not_say_how_long_it_is(tmp_path):
    path = cut(write_video(tmp_path / "a.ts", numbered_frames(96)), 0.5)
    assert 20 < len(list(frames(path))) < 80


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_sound_that_outlasts_the_picture(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le" if name == "a.avi" else "aac", rate=8000)
        for frame in numbered_frames(20).numpy():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode(None))
        layout = "s16" if name == "a.avi" else "fltp"
        for number in range(8 * 6):
            silence = np.zeros((1, 1000), np.int16 if layout == "s16" else np.float32)
            chunk = av.AudioFrame.from_ndarray(silence, layout, "mono")
            chunk.sample_rate, chunk.pts = 8000, number * 1000
            container.mux(sound.encode(chunk))
        container.mux(sound.encode(None))
    assert frame_number(read_frames(path, times=[5.5])[0]) == 19
    assert len(list(frames(path, fps=10))) == 20
    assert probe(path).duration == pytest.approx(2.0, abs=0.15)


def test_beyond_the_end_is_the_last_frame(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(20))
    assert frame_number(read_frames(path, times=[1e6])[0]) == 19
    assert frame_number(read_frames(path, times=[1e300])[0]) == 19
    assert frame_number(read_frames(path, indices=[10**9])[0]) == 19


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_clock_that_jumps(tmp_path, name):
    # Some 25 hours; transport streams have no room for more.
    pts = [*range(10), *range(1440010, 1440020)]
    path = write_video(tmp_path / name, numbered_frames(20), pts=pts)
    pattern = "its clock jumps to"
    begun = time.monotonic()
    assert frame_number(read_frames(path, times=[0.25])[0]) == 4
    with pytest.raises(DecodeError, match=pattern):
        list(frames(path, fps=25))
    with pytest.raises(DecodeError, match=pattern):
        for _ in windows(path, 2, 1, hop=1e-3 if name == "a.ts" else None):
            pass
    with pytest.raises(DecodeError, match=pattern):
        read_frames(path, times=[5000.0])
    assert time.monotonic() - begun < 5


def test_a_header_that_claims_a_huge_picture(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered_frames(3, 48, 64), codec="rawvideo", pix_fmt="bgr24")
    content = path.read_bytes()
    at = content.index(b"strf") + 8
    header = bytearray(content)
    header[at + 4 : at + 12] = (60000).to_bytes(4, "little") * 2
    path.write_bytes(header)
    with pytest.raises(DecodeError):
        read_frames(path)


@pytest.fixture(params=["a.mp4", "a.jpg"])
def read(request):
    return request.param, (lambda path: read_frames(path)) if request.param == "a.mp4" else read_image


def test_not_a_file(tmp_path, read):
    name, reader = read
    path = tmp_path / name
    path.mkdir()
    with pytest.raises(DecodeError, match=r"is a folder, not a file"):
        reader(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(DecodeError, match="is a named pipe, not a file"):
        reader(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            server.bind(name)
        finally:
            os.chdir(here)
        with pytest.raises(DecodeError, match="is a socket, not a file"):
            reader(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DecodeError, match="is a device, not a file"):
        reader(path)
    path.unlink()
    path.touch()
    with pytest.raises(DecodeError, match="is empty"):
        reader(path)
    with pytest.raises(DecodeError, match="null"):
        reader(Path("a\0.mp4"))


@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{path}\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>secret.mp4</BaseURL></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_file_that_names_another_is_not_followed(tmp_path, script):
    secret = write_video(tmp_path / "secret.mp4", numbered_frames(5))
    assert len(read_frames(secret)) == 5
    path = tmp_path / "x.mp4"
    path.write_text(script.format(path=secret))
    with pytest.raises(DecodeError, match="Invalid"):
        read_frames(path)


def test_a_reference_movie_is_not_followed(tmp_path):
    secret = write_video(tmp_path / "secret.mov", numbered_frames(5), codec="rawvideo", pix_fmt="yuv420p")
    content = secret.read_bytes()
    own = b"\0\0\0\x0curl \0\0\0\1"  # "the data are in this file"
    assert content.count(own) == 1
    name = b"secret.mov\0"
    entry = (12 + len(name)).to_bytes(4, "big") + b"url \0\0\0\0" + name
    out = bytearray(content)
    at = content.index(own)
    out[at : at + len(own)] = entry
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = out.index(box) - 4
        size = int.from_bytes(out[place : place + 4], "big") + len(entry) - len(own)
        out[place : place + 4] = size.to_bytes(4, "big")
    mdat = out.index(b"mdat")
    size = int.from_bytes(out[mdat - 4 : mdat], "big")
    out[mdat + 4 : mdat - 4 + size] = bytes(size - 8)  # what the other file shows is not in this one
    path = tmp_path / "x.mov"
    path.write_bytes(out)
    try:
        shown = read_frames(path)
    except DecodeError:
        return
    assert shown.float().std() < 1  # nothing of the other file
