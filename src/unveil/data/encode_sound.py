"""Sound, encoded anew for fast random access: FLAC of one channel. Sources are only read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from torch import Tensor

from unveil.data.encode import Encoding
from unveil.data.sound_reader import SoundReader

AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
"""Samples per second that AAC knows."""


def sound_name(name: str) -> str:
    """What a sound file is called when it was encoded."""
    return os.path.splitext(name)[0] + ".flac"


def encode_sound(source: str, target: str, how: Encoding) -> int:
    """FLAC of 16 bits and one channel, the mean of the source's, at `how.rate` samples per second or the source's if that is less.

    Returns:
        The number of samples written.

    Raises:
        DecodeError: the source cannot be read to its end.
        OSError: the target cannot be written.
    """
    with SoundReader(source) as sound:
        rate = min(how.rate, sound.rate)
        return write_flac(target, sound.blocks(rate), rate)


def compressed(x: Tensor, rate: int) -> bytes:
    """A waveform [1,L] as a small file that any browser plays: AAC in an MP4, 64 kbit/s at most."""
    fits = next((known for known in AAC_RATES if known <= rate), AAC_RATES[-1])
    whole = x.detach().float().cpu().nan_to_num(0).clamp(-1, 1).numpy()
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=fits)
        stream.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue] (of its codec context)
        stream.bit_rate = min(64_000, 4 * fits)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(whole), "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = AudioResampler("fltp", "mono", fits, stream.codec_context.frame_size or 1024)
        for fitted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(fitted))
        container.mux(stream.encode(None))
    return file.getvalue()


def write_flac(target: str | IO[bytes], blocks: Iterable[np.ndarray], rate: int) -> int:
    """Write samples in [-1, 1], float32 [n], block by block; without loss but for the rounding to 16 bits.

    Returns:
        The number of samples written.

    Raises:
        OSError: the target cannot be written.
    """
    written = 0
    with av.open(target, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate)
        stream.layout, stream.format = "mono", "s16"  # pyright: ignore[reportAttributeAccessIssue] (of its codec context)
        for block in blocks:
            whole = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
            frame = AudioFrame.from_ndarray(whole[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, written, Fraction(1, rate)
            container.mux(stream.encode(frame))
            written += len(block)
        container.mux(stream.encode(None))
    return written
