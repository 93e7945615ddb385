"""Sound, encoded anew for fast random access: FLAC of one channel. Sources are only read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame

from unveil.data.encode import Encoding
from unveil.data.sound_reader import SoundReader


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
