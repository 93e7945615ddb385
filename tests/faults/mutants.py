"""Small real files of every container, and what chance or malice makes of them.

A mutant is a function of (source, kind, seed) and of the encoders that wrote the source: `Mutant.write` recreates it.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from media import numbered_frames, write_video
from PIL import Image

QUIET = {"x265-params": "log-level=none"}
# name: (codec of the picture, of the sound, what write_video is told)
VIDEOS: dict[str, tuple[str, str | None, dict]] = {
    "h264.mp4": ("libx264", "aac", {"bframes": 2}),
    "h264-silent.mp4": ("libx264", None, {"gop": 4}),
    "h264-fragmented.mp4": ("libx264", None, {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264-rotated.mov": ("libx264", "aac", {"rotation": 90}),
    "mpeg4.mp4": ("mpeg4", None, {"bframes": 2}),
    "prores.mov": ("prores_ks", "pcm_s16le", {"pix_fmt": "yuv422p10le"}),
    "hevc.mp4": ("libx265", "aac", {"bframes": 2, "options": QUIET}),
    "av1.mp4": ("libsvtav1", None, {"options": {"preset": "12"}}),
    "h264.m4v": ("libx264", "aac", {}),
    "h264.3gp": ("libx264", None, {}),
    "h264.mkv": ("libx264", "libopus", {"bframes": 2}),
    "hevc.mkv": ("libx265", None, {"options": QUIET}),
    "av1.mkv": ("libsvtav1", None, {"options": {"preset": "12"}}),
    "ffv1.mkv": ("ffv1", None, {}),
    "vp8.webm": ("libvpx", "libopus", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "vp9.webm": ("libvpx-vp9", None, {}),
    "mpeg4.avi": ("mpeg4", "libmp3lame", {"bframes": 2}),
    "mjpeg.avi": ("mjpeg", None, {"pix_fmt": "yuvj420p"}),
    "h264.avi": ("libx264", None, {"bframes": 2}),
    "gif.gif": ("gif", None, {"fps": 20}),
    "h264.ts": ("libx264", "aac", {"bframes": 2}),
    "mpeg2.ts": ("mpeg2video", None, {"fps": 25, "bframes": 2}),
    "mpeg2.mpg": ("mpeg2video", "mp2", {"fps": 25, "bframes": 2}),
    "h264.flv": ("libx264", "libmp3lame", {}),
    "flv1.flv": ("flv", None, {}),
    "wmv2.wmv": ("wmv2", "wmav2", {}),
    "vp8.ogv": ("libvpx", "libopus", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
}
# FFmpeg's decoders of these show memory that they have not written where a few in a thousand damaged files are concerned:
# two readings of such a file can differ, and nothing tells that they do.
UNSTEADY = {name for name, (codec, _, _) in VIDEOS.items() if codec in ("prores_ks", "ffv1", "mpeg2video")}
IMAGES = {"rgb.jpg": {}, "rgb.png": {}, "grey.png": {}, "rgb.webp": {}, "rgb.bmp": {}, "palette.gif": {}}
IMAGES |= {"lzw.tiff": {"compression": "tiff_lzw"}, "rgb.tif": {}, "rgb.ppm": {}, "grey.pgm": {}}


def modality(name: str) -> str:
    """As what the library reads a file: a GIF is a video, also if it has one frame."""
    return "image" if name in IMAGES and not name.endswith(".gif") else "video"


def write_sources(folder: Path, names: tuple[str, ...] = (*VIDEOS, *IMAGES)) -> list[Path]:
    """The named sources, a few kilobytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    return [(_write_image if name in IMAGES else _write_video)(folder / name) for name in names]


def _write_video(path: Path) -> Path:
    codec, sound, options = VIDEOS[path.name]
    os.environ["SVT_LOG"] = "0"  # the AV1 encoder has no option for silence
    frames = numbered_frames(24)
    # Texture, so that most of the bytes are picture and not headers.
    grain = torch.from_numpy(np.random.default_rng(0).integers(0, 24, frames.shape, dtype=np.uint8))
    if not sound:
        return write_video(path, frames + grain, codec=codec, **options)
    silent = write_video(path.with_name(f"silent-{path.name}"), frames + grain, codec=codec, **options)
    _add_sound(silent, path, sound)
    silent.unlink()
    return path


def _add_sound(silent: Path, path: Path, codec: str) -> None:
    rate = 48000 if codec == "libopus" else 44100
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        audio = target.add_stream(codec, rate=rate)
        assert isinstance(audio, av.AudioStream)
        audio.codec_context.layout, audio.codec_context.bit_rate = "mono", 64_000
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                target.mux(packet)
        samples = (8000 * np.sin(np.arange(rate * 3 // 2) * 0.05)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        audio_format = audio.codec_context.format.name
        resampler = av.AudioResampler(audio_format, "mono", rate, audio.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            target.mux(audio.encode(piece))
        target.mux(audio.encode(None))


def _write_image(path: Path) -> Path:
    array = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    if path.stem == "grey":
        image = image.convert("L")
    if path.stem == "palette":
        image = image.convert("P")
    image.save(path, **IMAGES[path.name])
    return path


# ---- bytes → other bytes


def truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flip_bit(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return _flipped(data, [rng.randrange(len(data))], rng)


def flip_bits(data: bytes, other: bytes, rng: random.Random) -> bytes:
    share = 10 ** rng.uniform(-4, -1)
    return _flipped(data, [rng.randrange(len(data)) for _ in range(max(2, int(share * len(data))))], rng)


def flip_header(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bits near the beginning and the end, where containers keep what they hold."""
    near = min(len(data), 1500)
    places = [rng.randrange(near) - (near if rng.random() < 0.5 else 0) for _ in range(rng.randint(1, 12))]
    return _flipped(data, [place % len(data) for place in places], rng)


def extreme_field(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Sizes, counts and times of the header become the largest, the smallest, the most negative."""
    out, near = bytearray(data), min(len(data), 1500)
    for _ in range(rng.randint(1, 4)):
        width = rng.choice((1, 2, 4, 8))
        place = (rng.randrange(near) - (near if rng.random() < 0.5 else 0)) % max(1, len(data) - width)
        value = rng.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7, rng.randbytes(8)))
        out[place : place + width] = value[:width]
    return bytes(out)


def zero_run(data: bytes, other: bytes, rng: random.Random) -> bytes:
    begin, end = _run(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The head of one file on the body of another."""
    cut = rng.choice((rng.randrange(1, len(other)), rng.randrange(1, min(len(other), 1500))))
    return other[:cut] + data[cut if rng.random() < 0.5 else rng.randrange(len(data)) :]


def swap_blocks(data: bytes, other: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def duplicate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    begin, end = _run(data, rng)
    return data[:end] + data[begin:end] * rng.randint(1, 20) + data[end:]


def remove(data: bytes, other: bytes, rng: random.Random) -> bytes:
    begin, end = _run(data, rng)
    return data[:begin] + data[end:]


def empty(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return b""


def text(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"This is not a film.\n" * rng.randint(1, 200),
            b"<!DOCTYPE html><html><title>404 Not Found</title></html>\n",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            b"ffconcat version 1.0\nfile h264.mp4\nduration 1000000\n",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\nh264.ts\n#EXT-X-ENDLIST\n",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\nh264.ts\n",  # a live list: reloaded for ever
            b"[Script Info]\nDialogue: 0,0:00:00.00,9:59:59.00,a,b,0,0,0,,hello\n",
            b"1\n00:00:01,000 --> 99:00:02,000\nsubtitle\n",
        )
    )


def magic(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A valid beginning, then noise."""
    return data[: rng.choice((4, 8, 12, 32, 64, 200))] + rng.randbytes(rng.randrange(20_000))


def append(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((rng.randbytes(rng.randrange(1, 20_000)), other, bytes(rng.randrange(1, 20_000)), data))


def _flipped(data: bytes, places: list[int], rng: random.Random) -> bytes:
    out = bytearray(data)
    for place in places:
        out[place] ^= 1 << rng.randrange(8)
    return bytes(out)


def _run(data: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(data))
    return begin, min(len(data), begin + max(1, int(len(data) ** rng.random())))


BYTES: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    f.__name__: f
    for f in (truncate, flip_bit, flip_bits, flip_header, extreme_field, zero_run, splice, swap_blocks, duplicate, remove,
              empty, text, magic, append)
}  # fmt: skip


def mutate(data: bytes, kind: str, rng: random.Random, other: bytes = b"") -> bytes:
    """`data` damaged in the way of `kind`; `other` is a second file, for splices."""
    return BYTES[kind](data, other or data, rng)


# ---- what is no file


def directory(path: Path) -> None:
    path.mkdir()


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "note.txt").write_text("not a film")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # The length of a socket's address is limited; that of a path below the current folder hardly matters.
        place = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{place}/{path.name}")
        finally:
            os.close(place)


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.mp4")


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unreadable(path: Path) -> None:
    path.write_bytes(b"secret")
    path.chmod(0)


NON_FILES: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (directory, full_directory, fifo, unix_socket, dangling_link, link_loop, endless_device, unreadable)
}


@dataclass(frozen=True)
class Mutant:
    """A mutant by what recreates it."""

    source: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        stem, suffix = os.path.splitext(self.source)
        return f"{stem}-{self.kind}-{self.seed}{suffix}"

    @property
    def modality(self) -> str:
        return modality(self.source)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The outcomes that are no defect of the library."""
        return ("ok", "bad", "UNSTEADY") if self.source in UNSTEADY else ("ok", "bad")

    def write(self, sources: Path, folder: Path) -> Path:
        """Recreate it in `folder` from the files of `write_sources`."""
        path = folder / self.name
        rng = random.Random(repr((self.source, self.kind, self.seed)))
        if self.kind in NON_FILES:
            NON_FILES[self.kind](path)
            return path
        alike = IMAGES if self.source in IMAGES else VIDEOS
        other = rng.choice(sorted(set(alike) - {self.source}))
        other_bytes = (sources / other).read_bytes() if (sources / other).exists() else b""
        path.write_bytes(mutate((sources / self.source).read_bytes(), self.kind, rng, other_bytes))
        return path


def population(count: int, seed: int) -> list[Mutant]:
    """`count` mutants: every kind of every source in turn, and all that is no file once for each of two suffixes."""
    strange = [Mutant(source, kind, seed) for kind in NON_FILES for source in ("h264.mp4", "rgb.png")]
    once = ("empty", "text")  # of these, more seeds hardly say more
    pairs = [(source, kind) for source in (*VIDEOS, *IMAGES) for kind in BYTES]
    random.Random(seed).shuffle(pairs)
    made: list[Mutant] = []
    turn = 0
    while len(made) < count - len(strange):
        rare = [(source, kind) for source, kind in pairs if kind not in once or turn % 10 == 0]
        made += [Mutant(source, kind, seed * 1000 + turn) for source, kind in rare]
        turn += 1
    return strange + made[: max(0, count - len(strange))]
