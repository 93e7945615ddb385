"""Small files of sound for tests: any codec and layout, alone or beside flashing pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PCM = {".wav": "pcm_s16le", ".aiff": "pcm_s16be", ".au": "pcm_s16be", ".w64": "pcm_s16le", ".caf": "pcm_s16be"}
CODECS = {
    **PCM, ".flac": "flac", ".mp3": "libmp3lame", ".ogg": "vorbis", ".opus": "libopus", ".m4a": "aac", ".aac": "aac",
    ".mka": "libopus", ".wma": "wmav2", ".ac3": "ac3", ".ts": "aac", ".mkv": "libmp3lame",
}  # fmt: skip


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0, loudness: float = 0.5) -> np.ndarray:
    """A sine, float32 [L]."""
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def chirp(seconds: float, rate: int = 16000, loudness: float = 0.4) -> np.ndarray:
    """A tone that never repeats itself, float32 [L]: where a stretch of it lies can be told."""
    t = np.arange(round(seconds * rate)) / rate
    return (loudness * np.sin(2 * np.pi * (300 * t + 40 * t**2 + 20 * np.sin(3 * t)))).astype(np.float32)


def write_sound(
    path: Path,
    x: np.ndarray,
    rate: int = 16000,
    codec: str | None = None,
    layout: str | None = None,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode `x` ([L] or [channels, L]) to `path`; its suffix chooses the container and, unless given, the codec."""
    x = np.atleast_2d(x).astype(np.float32)
    codec = codec or CODECS[path.suffix]
    options = dict(options or {})
    if codec == "vorbis":  # FFmpeg's own encoder, which knows two channels only
        options["strict"] = "-2"
        x = np.repeat(x, 2, axis=0) if len(x) == 1 else x
    elif codec == "aac":
        options = {"aac_pns": "0"} | options  # noise that a decoder makes up depends on what it decoded before
    elif codec == "wmav2":
        bit_rate = bit_rate or 64000
    layout = layout or {1: "mono", 2: "stereo"}[len(x)]
    with av.open(str(path), "w") as container:
        stream = sound_stream(container, codec, rate, layout, bit_rate, options)
        container.start_encoding()
        encode(container, stream, x, rate, layout)
    return path


def encode(container, stream, x: np.ndarray, rate: int, layout: str, start: float = 0.0) -> None:
    """Mux all of `x` [channels, L] as a stream of sound, its first sample at `start` seconds."""
    context = stream.codec_context
    fits = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or None)
    if x.shape[1]:
        packed = np.ascontiguousarray(x.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
        for fitted in [*fits.resample(frame), *fits.resample(None)]:
            for packet in stream.encode(fitted):
                container.mux(packet)
    for packet in stream.encode(None):
        container.mux(packet)


def sound_stream(container, codec: str, rate: int, layout: str, bit_rate: int | None, options: dict[str, str]):
    """A stream of sound in a container that is being written."""
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.layout = layout
    if bit_rate:
        stream.bit_rate = bit_rate
    stream.time_base = Fraction(1, rate)
    return stream


def write_clip(
    path: Path,
    flashes: list[float],
    beeps: list[float],
    seconds: float = 4.0,
    fps: int = 25,
    rate: int = 48000,
    sound: tuple[float, float] | None = None,
    picture: float = 0.0,
    codec: str = "aac",
    bframes: int = 0,
) -> Path:
    """A dark video that is white for a frame at each of `flashes`, with 1 kHz beeps of 40 ms; both in seconds of one clock.

    Args:
        sound: from when to when there is a sound track; None: all the time.
        picture: when the first frame is shown.
    """
    begun, ended = sound or (0.0, seconds)
    x = np.zeros((1, round((ended - begun) * rate)), np.float32)
    for beep in beeps:
        at = round((beep - begun) * rate)
        x[0, at : at + rate // 25] = tone(0.04, rate, 1000.0)
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", rate=fps, options={"preset": "ultrafast", "crf": "12", "bf": str(bframes)}
        )
        video.width, video.height, video.pix_fmt, video.gop_size = 32, 32, "yuv420p", 12
        audio = sound_stream(container, codec, rate, "mono", None, {})
        container.start_encoding()
        for number in range(round((seconds - picture) * fps)):
            lit = any(abs(picture + number / fps - flash) < 0.5 / fps for flash in flashes)
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 255 * lit, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(picture * fps) + number, Fraction(1, fps)
            for packet in video.encode(frame):
                container.mux(packet)
        for packet in video.encode(None):
            container.mux(packet)
        encode(container, audio, x, rate, "mono", start=begun)
    return path
