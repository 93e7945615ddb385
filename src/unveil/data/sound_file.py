"""An open file of sound: where its samples lie on its clock, and how decoding gets there.

Time is in seconds from where `VideoReader` counts: from the first picture, where the file has pictures, otherwise from its own
first sample. Sound lies where its time stamps say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.container.input import InputContainer
from av.stream import Discard, Disposition

from unveil.data import archives
from unveil.data.container import declared_end, open_container, packets_of, reported
from unveil.data.video_file import MAX_GAP
from unveil.errors import DecodeError

RATES = (100, 4_000_000)
"""Samples per second that a file may claim; beyond, its header is broken."""

_RUN_UP = (
    1.0  # seconds that a decoder is given to be as if it had come from the start: MP3's bit reservoir, SBR, overlaps
)
_SEEK_BACK = (0.0, 4.0, 16.0)  # seconds further back that are tried in turn
_CUT_SHORT = 0.5  # seconds that may be missing at the end
# Bare streams: nothing in them says how long they are, and FFmpeg guesses from the bit rate.
_WITHOUT_DURATION = {"mp3", "aac", "ac3", "eac3", "loas", "amr"}
_DECLARING = {
    "wav",
    "w64",
    "flac",
    "aiff",
    "au",
    "tta",
    "ape",
    "wv",
    "caf",
}  # of a single stream, whose length is in the header


class SoundFile:
    """The sound of an open file.

    Args:
        path: of a sound file, or of a video with a sound track: its first.

    Attributes:
        rate: samples per second, as decoded.
        channels: as the header says.
        duration: seconds from zero to where the sound ends.

    Raises:
        DecodeError: no such file, not a regular one, no sound in it, or the decoder gave up; here and in every method.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._container: InputContainer | None = None
        self._open()
        try:
            self._learn()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    # ---- opening

    def _open(self) -> None:
        self.close()
        self._container = container = open_container(self.path, "sound")
        if not container.streams.audio:
            self.close()
            raise DecodeError(f"{self.path}: holds no sound.")
        self._stream = container.streams.audio[0]
        if self._stream.codec_context is None:
            self.close()
            raise DecodeError(f"{self.path}: no decoder for its sound.")
        for stream in container.streams:
            if stream.index != self._stream.index:
                stream.discard = Discard.all
        self._fresh = True

    def _learn(self) -> None:
        container, stream = self._opened(), self._stream
        self.rate = int(stream.codec_context.sample_rate or 0)
        self.channels = int(stream.codec_context.channels or 0)
        if not RATES[0] <= self.rate <= RATES[1] or not self.channels:
            raise DecodeError(
                f"{self.path}: claims {self.channels} channels at {self.rate} samples per second: its header is broken."
            )
        self._time_base = float(stream.time_base or 1 / self.rate)
        name = container.format.name
        started = (stream.start_time or 0) * self._time_base
        self._zero = self._zero_of_pictures(started)
        self._grid: tuple[int, int] | None = None
        self._coarse = self._time_base * self.rate > 1
        end = declared_end(container, stream)
        if end is None and name in _DECLARING and stream.duration is not None:
            end = started + stream.duration * self._time_base * (_claimed_share(self.path) if name == "wav" else 1)
        self._declared = end
        if end is None and (name in _WITHOUT_DURATION or (stream.duration is None and container.duration is None)):
            end = _end_of_packets(self.path, *archives.status(self.path))
        if end is None and stream.duration is not None:
            end = started + stream.duration * self._time_base
        if end is None:
            assert container.duration is not None
            end = ((container.start_time or 0) + container.duration) / av.time_base
        self.duration = max(0.0, end - self._zero)

    def _zero_of_pictures(self, started: float) -> float:
        """What `VideoReader` calls 0, on the container's clock; of a file without pictures where its sound starts."""
        covers = Disposition.attached_pic
        pictures = [s for s in self._opened().streams.video if not s.disposition & covers]
        if not pictures:
            return started
        if pictures[0].start_time is None or self._opened().format.name == "avi":
            return 0.0  # its pictures bear no times: they are counted from where the file begins
        return pictures[0].start_time * float(pictures[0].time_base or 1)

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise ValueError(f"{self.path} is closed")
        return self._container

    # ---- samples

    def decoded(self, begin: int) -> Iterator[tuple[int, np.ndarray]]:
        """(place, samples [n]) in order from `begin` or before to the end; places count samples from time 0."""
        for back in _SEEK_BACK:
            wanted = begin / self.rate - _RUN_UP - back
            if wanted <= _RUN_UP:
                break
            if self._coarse and self._grid is None:
                self._grid = self._frame_grid()
            try:
                self._opened().seek(round((wanted + self._zero) / self._time_base), stream=self._stream)
            except (av.FFmpegError, OverflowError):  # not a seekable file: it is read from the start
                self._fresh = False
                break
            frames = self._frames(begin)
            first = next(frames, None)
            if first is not None and first[0] <= begin - _RUN_UP * self.rate / 2:
                yield from chain([first], frames)
                return
        if not self._fresh:
            self._open()  # exact for every format; seeking to zero is not
        yield from self._frames(None)

    def _frame_grid(self) -> tuple[int, int]:
        """Where frames begin, as the first and the distance from one to the next; a distance of 0 where it varies.

        Clocks that tick in milliseconds say it only roughly. The first frame itself may be shorter: what a codec needs to
        begin with is cut from it.
        """
        if not self._fresh:
            self._open()
        places = [(place, place + len(sound)) for place, sound in islice(self._frames(None), 4)]
        sizes = {end - begin for begin, end in places[1:]}
        return (places[0][1], sizes.pop()) if len(places) == 4 and len(sizes) == 1 else (0, 0)

    def _frames(self, sought: int | None) -> Iterator[tuple[int, np.ndarray]]:
        """Decoded frames with their places; `sought`: the file stands in its middle, and what is broken before is passed over."""
        self._fresh = False
        place: int | None = None
        convert: tuple[Any, AudioResampler] | None = None
        first_place = round(((self._stream.start_time or 0) * self._time_base - self._zero) * self.rate)
        for packet in packets_of(self._opened(), self._stream, self.path):
            try:
                with reported(self.path):
                    frames = packet.decode()
            except DecodeError:
                if sought is None or (place is not None and place > sought - _RUN_UP * self.rate / 2):
                    raise
                continue
            for frame in frames:
                if frame.sample_rate != self.rate:
                    raise DecodeError(
                        f"{self.path}: its sound changes from {self.rate} to {frame.sample_rate} samples per second."
                    )
                stamp = None if frame.pts is None else self._place(frame.pts)
                if stamp is None and place is None:
                    if sought is not None:
                        return  # nothing says where this is
                    stamp = first_place
                if place is None:
                    assert stamp is not None
                    place = self._snapped(stamp) if sought is not None else stamp
                elif stamp is not None and abs(stamp - place) > self._slack:
                    if abs(stamp - place) > MAX_GAP * self.rate:
                        raise DecodeError(
                            f"{self.path}: after {place / self.rate:.1f} s its clock jumps to {stamp / self.rate:.4g} s. "
                            "Re-encode it, or leave it out."
                        )
                    place = stamp
                if convert is None or convert[0] != (frame.format.name, frame.layout.name):
                    layout = frame.layout
                    convert = (frame.format.name, layout.name), AudioResampler("flt", layout, self.rate)
                frame.pts = None
                for converted in convert[1].resample(frame):
                    sound = (
                        converted.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(axis=1, dtype=np.float32)
                    )
                    if not np.isfinite(sound).all():
                        raise DecodeError(f"{self.path}: holds samples that are not finite numbers.")
                    yield place, sound
                    place += len(sound)
        if sought is None and place is None:
            raise DecodeError(f"{self.path}: holds not a single sample of sound.")
        if place is not None and self._declared is not None:
            ended = place / self.rate + self._zero
            if self._declared - ended > _CUT_SHORT:
                raise DecodeError(
                    f"{self.path}: its sound ends after {ended - self._zero:.1f} s of {self.duration:.1f} s: the file is cut short."
                )

    @property
    def _slack(self) -> float:
        """How many samples a time stamp may differ from where the samples before end: clocks are rounded to their ticks."""
        return max(1.0, 1.5 * self._time_base * self.rate)

    def _place(self, pts: int) -> int:
        return round((pts * self._time_base - self._zero) * self.rate)

    def _snapped(self, stamp: int) -> int:
        """Where a frame is that a rounded clock puts at `stamp`: whole frames after the first, if that is within a tick."""
        first, size = self._grid or (0, 0)
        if not size:
            return stamp
        exact = first + round((stamp - first) / size) * size
        return exact if abs(exact - stamp) <= self._time_base * self.rate else stamp


def _claimed_share(path: str) -> float:
    """How many times longer than the file is, a WAV file says that it is; 1 where it says nothing, or no more.

    FFmpeg takes what is there for what was meant. Programs that write to a pipe say nothing (0, or all bits set).
    """
    with archives.opened(path) as file:
        head = file.read(8)
    there, claimed = archives.status(path)[0], int.from_bytes(head[4:8], "little") + 8
    streamed = head[:4] != b"RIFF" or claimed > 0x7FFF0000
    return 1.0 if streamed or claimed <= there else claimed / there


@lru_cache(maxsize=1 << 16)
def _end_of_packets(path: str, size: int, mtime_ns: int) -> float:
    """When the last packet of a bare stream ends, on the container's clock: all are read, none is decoded."""
    container = open_container(path, "sound")
    try:
        stream = container.streams.audio[0]
        time_base = float(stream.time_base or 1)
        started = (stream.start_time or 0) * time_base
        end, length = started, 0.0
        for packet in packets_of(container, stream, path):
            length += (packet.duration or 0) * time_base
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * time_base)
        return max(end, started) if end > started else started + length
    finally:
        container.close()
