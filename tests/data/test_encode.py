"""Files encoded anew: the same frames at the same times, upright, with their sound and colours."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import frame_number, numbered_frames, write_video
from PIL import Image as Picture

from unveil.data import VideoReader, read_image
from unveil.data.encode import Encoding, encode_image, image_name, video_name
from unveil.data.encode_video import encode_video
from unveil.errors import DecodeError

FRAMES = numbered_frames(40, height=90, width=122)
HOW = Encoding(short_side=60, gop=8, crf=12)


def with_sound(source: Path, target: Path, codec: str, rate: int = 48_000, delay: float = 0.0) -> Path:
    """The same video with a tone of 2.5 s."""
    tone = (8000 * np.sin(np.arange(int(2.5 * rate)) * 440 * 2 * np.pi / rate)).astype(np.int16)
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        video = made.add_stream_from_template(given.streams.video[0])
        audio = made.add_stream(codec, rate=rate, layout="mono")
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                made.mux(packet)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
            frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start + int(delay * rate)
            made.mux(audio.encode(frame))
        made.mux(audio.encode(None))
    return target


def sound_of(path: Path) -> tuple[str, float, float, float]:
    """Codec, first time, end, and loudness (1 is full scale)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        end = frames[-1].time + frames[-1].samples / frames[-1].rate
        scale = 32768 if frames[0].format.name.startswith("s16") else 1
        loud = max(np.abs(frame.to_ndarray().astype(float)).max() for frame in frames) / scale
        return stream.codec_context.name, frames[0].time, end, loud


SOURCES = {
    "long GOP, B-frames": ("a.mp4", {"gop": 40, "bframes": 3}),
    "NTSC": ("a.mp4", {"fps": 30, "time_base": Fraction(1001, 30000)}),
    "variable": ("a.mkv", {"pts": np.cumsum(np.arange(40) % 5 * 20 + 10).tolist(), "time_base": Fraction(1, 1000)}),
    "rotated": ("a.mp4", {"rotation": 90}),
    "mirrored": ("a.mp4", {"rotation": 180, "mirror": True}),
    "full range": ("a.mp4", {"pix_fmt": "yuvj420p"}),
    "BT.709": ("a.mp4", {"options": {"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"}}),
    "4:4:4": ("a.mkv", {"pix_fmt": "yuv444p"}),
    "10 bits": ("a.mkv", {"pix_fmt": "yuv420p10le"}),
    "RGB": ("a.mkv", {"codec": "libx264rgb"}),
    "avi": ("a.avi", {"codec": "mpeg4", "fps": 25}),
    "no times": ("a.h264", {"container_format": "h264"}),
    "gif": ("a.gif", {"codec": "gif", "fps": 10}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9"}),
    "ts": ("a.ts", {}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_frames_and_times_are_the_same(tmp_path, name):
    file, options = SOURCES[name]
    source = write_video(tmp_path / file, FRAMES, **options)
    before = source.read_bytes()
    assert encode_video(str(source), str(tmp_path / "out.mp4"), HOW) == 40
    assert source.read_bytes() == before
    with VideoReader(source) as given, VideoReader(tmp_path / "out.mp4") as made:
        old = [(time, given.rgb(frame).copy()) for time, frame in given.decode()]
        new, keys = [], []
        for number, (time, frame) in enumerate(made.decode()):
            new.append((time, made.rgb(frame).copy()))
            if frame.key_frame:
                keys.append(number)
        assert [time for time, _ in new] == pytest.approx([time for time, _ in old], abs=1e-4)
        # A container may round the end to its clock; AVI and Matroska do not know how long the last frame lasts.
        assert made.duration == pytest.approx(given.duration, abs=0.012)
        assert max(np.diff([*keys, len(new)])) <= HOW.gop
        assert new[0][1].shape == ((80, 60, 3) if name == "rotated" else (60, 80, 3))
        for (_, a), (_, b) in zip(old[::13], new[::13], strict=True):
            small = np.asarray(Picture.fromarray(a).resize(b.shape[1::-1], Picture.Resampling.BICUBIC), float)
            assert np.abs(small - b).mean() < 8  # another orientation, range or matrix is much farther off
            if name not in ("rotated", "mirrored"):
                assert frame_number(a) == frame_number(b)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.format.name in ("yuv420p", "yuvj420p")
        assert (context.color_range == 2) is (name == "full range")
        assert (context.colorspace == 1) is (name == "BT.709")


@pytest.mark.parametrize(
    ("file", "codec", "kept"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.ts", "aac", "aac"),
        ("a.mkv", "libopus", "opus"),
        ("a.mov", "pcm_s16le", "aac"),
        ("a.mkv", "mp2", "aac"),
    ],
)
def test_sound_is_there_and_in_time(tmp_path, file, codec, kept):
    video = write_video(tmp_path / "silent.mp4", FRAMES, bframes=2)
    source = with_sound(video, tmp_path / file, codec)
    encode_video(str(source), str(tmp_path / "out.mp4"), HOW)
    with VideoReader(source) as given:
        frame = next(given.decode())[1]
        start = float(frame.pts * frame.time_base)
    name, first, end, loud = sound_of(tmp_path / "out.mp4")
    _, own_first, own_end, own_loud = sound_of(source)
    assert name == kept
    # AAC begins with a frame of silence, which an edit list hides from players.
    assert first == pytest.approx(max(0, own_first - start), abs=0.03)
    assert end == pytest.approx(own_end - start, abs=0.05)
    assert loud == pytest.approx(own_loud, rel=0.5)


def test_sound_that_begins_late_stays_late(tmp_path):
    source = with_sound(write_video(tmp_path / "silent.mp4", FRAMES), tmp_path / "a.mkv", "mp2", delay=0.5)
    encode_video(str(source), str(tmp_path / "out.mp4"), HOW)
    assert sound_of(tmp_path / "out.mp4")[1] == pytest.approx(0.5, abs=0.05)


def test_fewer_frames_per_second(tmp_path):
    source = write_video(tmp_path / "a.mp4", FRAMES, fps=16)
    assert encode_video(str(source), str(tmp_path / "out.mp4"), Encoding(short_side=60, fps=4)) == 10
    with VideoReader(tmp_path / "out.mp4") as made:
        frames = [(time, frame_number(made.rgb(frame))) for time, frame in made.decode()]
        assert made.duration == pytest.approx(2.5)
    assert [number for _, number in frames] == list(range(0, 40, 4))
    assert [time for time, _ in frames] == pytest.approx([i / 4 for i in range(10)])
    assert encode_video(str(source), str(tmp_path / "all.mp4"), Encoding(short_side=60, fps=30)) == 40


def test_small_and_odd_files_are_not_enlarged(tmp_path):
    source = write_video(tmp_path / "a.webm", numbered_frames(4, 33, 47), codec="libvpx-vp9", pix_fmt="yuv420p")
    encode_video(str(source), str(tmp_path / "out.mp4"), Encoding())
    with VideoReader(tmp_path / "out.mp4") as made:
        assert made.rgb(next(made.decode())[1]).shape == (32, 46, 3)


def test_broken_sources(tmp_path):
    whole = write_video(tmp_path / "a.mp4", FRAMES, gop=4).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("cut.mp4", "text.mp4", "nothing.mp4"):
        with pytest.raises(DecodeError, match=name):
            encode_video(str(tmp_path / name), str(tmp_path / "out.mp4"), HOW)


@pytest.mark.parametrize("fps", [None, 4.0])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", {"movflags": "faststart"}), ("a.mkv", "libx264", {}), ("a.avi", "mpeg4", {})],
)
def test_a_source_that_is_cut_short_is_no_shorter_film(tmp_path, name, codec, options, fps):
    frames = numbered_frames(64, 48, 64)  # 4 s
    source = write_video(tmp_path / name, frames, gop=4, codec=codec, container_options=options)
    encode_video(str(source), str(tmp_path / "out.mp4"), replace(HOW, fps=fps))
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DecodeError, match=name):
        encode_video(str(source), str(tmp_path / "out.mp4"), replace(HOW, fps=fps))


@pytest.mark.parametrize(
    ("name", "mode", "size", "expected"),
    [
        ("a.jpg", "RGB", (200, 100), (120, 60)),
        ("a.png", "P", (200, 100), (120, 60)),
        ("a.webp", "RGB", (50, 90), (50, 90)),
        ("a.tif", "L", (61, 61), (60, 60)),
    ],
)
def test_images(tmp_path, name, mode, size, expected):
    Picture.radial_gradient("L").resize(size).convert(mode).save(tmp_path / name)
    out = tmp_path / image_name(f"new-{name}")
    encode_image(str(tmp_path / name), str(out), HOW)
    made, given = read_image(out).float(), read_image(tmp_path / name).float()
    assert made.shape[1:] == expected[::-1]
    assert abs(made.mean() - given.mean()) < 2


def test_small_images_are_copied(tmp_path):
    Picture.new("RGB", (30, 20)).save(tmp_path / "a.jpeg")
    encode_image(str(tmp_path / "a.jpeg"), str(tmp_path / "b.jpg"), HOW)
    assert (tmp_path / "a.jpeg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_names():
    assert [video_name(name) for name in ("a/b.c.MOV", "a.mp4")] == ["a/b.c.mp4", "a.mp4"]
    assert [image_name(name) for name in ("a.TIFF", "a.jpeg", "a.webp")] == ["a.png", "a.jpg", "a.jpg"]
