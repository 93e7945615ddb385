"""A video, encoded anew for fast random access. Sources are only read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, count
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from unveil.data.encode import Encoding
from unveil.data.encode_sound import AAC_RATES
from unveil.data.video_reader import VideoReader
from unveil.errors import DecodeError

# What an mp4 may hold as it is; anything else becomes AAC.
_COPIED_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus"}


# What makes random clips cheap. A reader leaves out pictures that no other refers to: so up to fifteen of them in a row,
# and none that B-frames refer to. What is decoded goes without arithmetic coding, which costs as much as all the rest. And
# x264's weighing of blocks by what refers to them ("mbtree") is off: it is not the same every time, on small pictures.
_FAST = "bframes=15:b-adapt=0:b-pyramid=none:mbtree=0:cabac=0:weightb=0:weightp=0:no-deblock=1"
_CLOCK = Fraction(1, 90_000)  # for files that carry no times


def encode_video(source: str, target: str, how: Encoding) -> int:
    """H.264 in an MP4 whose index comes first: closed GOPs, the times of the frames, orientation, range and matrix kept.

    4:2:0 with eight bits, whatever the source; sides are even. The sound (the first track) is copied where an MP4 may hold
    it, otherwise it becomes AAC.

    Returns:
        The number of frames written.

    Raises:
        DecodeError: the source cannot be read to its end.
        OSError: the target cannot be written.
    """
    with VideoReader(source) as video, _Sound(source) as sound:
        frames = _timed_frames(video, how.fps)
        first = next(frames, None)
        if first is None:
            raise DecodeError(f"{source}: no frame could be decoded.")
        with av.open(target, "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream, shape = _video_stream(container, first, how, video.fps)
            sound.add_to(container, first[1])
            track = _Track(container, stream)
            reformatter = VideoReformatter()
            written, latest = 0, -1
            time_base = stream.codec_context.time_base
            for moment, frame in chain([first], frames):
                latest = max(latest + 1, round(moment / time_base))
                picture = _picture(reformatter, frame, shape, latest, time_base)
                track.add(stream.encode(picture), latest + (picture.duration or round(1 / (video.fps * time_base))))
                for packet in sound.until(float(moment)):
                    container.mux(packet)
                written += 1
            track.add(stream.encode(None))
            track.end()
            for packet in sound.until(None):
                container.mux(packet)
    return written


# ---- frames


def _timed_frames(video: VideoReader, fps: float | None) -> Iterator[tuple[Fraction, VideoFrame]]:
    """(seconds from the first frame, frame); the file's own clock is exact, so that no rounding adds up."""
    if fps is not None and fps < video.fps:
        step = 1 / Fraction(fps).limit_denominator(1001)
        for number, (_, frame) in enumerate(video.shown(float(n * step) for n in count())):
            yield number * step, frame
        return
    start: int | None = None
    for seconds, frame in video.decode():
        if frame.pts is not None and frame.time_base:
            start = frame.pts if start is None else start
            exact = (frame.pts - start) * frame.time_base
            if abs(exact - seconds) < 1e-3:  # the reader has mended a clock that ran backwards
                yield exact, frame
                continue
        yield Fraction(seconds).limit_denominator(90_000), frame
    video.check_end(math.inf)


def _video_stream(
    container: Any, first: tuple[Fraction, VideoFrame], how: Encoding, fps: float
) -> tuple[VideoStream, tuple[int, int]]:
    """The stream, and the width and height of its frames."""
    frame = first[1]
    options = {
        "preset": "fast",
        "crf": str(how.crf),
        "x264-params": f"keyint={how.gop}:min-keyint=1:open-gop=0:{_FAST}",
    }
    rate = Fraction(how.fps if how.fps and how.fps < fps else fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options=options)
    width, height = (max(2, side - side % 2) for side in how.scaled(frame.width, frame.height))
    context = stream.codec_context
    context.width, context.height, context.pix_fmt, context.thread_count = width, height, "yuv420p", 1
    # The encoder's clock is the file's where it has one: times are kept to the tick.
    own = how.fps is None or how.fps >= fps
    context.time_base = frame.time_base if own and frame.pts is not None and frame.time_base else _CLOCK
    if not own:
        context.time_base = 1 / rate
    context.color_range = int(_range(frame))
    context.colorspace, context.color_primaries, context.color_trc = (
        _matrix(frame),
        frame.color_primaries,
        frame.color_trc,
    )
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        stream.set_display_matrix(np.frombuffer(bytes(matrix), np.int32).tolist())
    return stream, (width, height)


class _Track:
    """Writes packets, the last one so long that the track ends when the last frame does.

    An MP4 adds up the distances of decoding times. Where frames are reordered and unevenly spaced, those end elsewhere.
    """

    def __init__(self, container: Any, stream: VideoStream):
        self._container, self._stream = container, stream
        self._held: Packet | None = None
        self._first: int | None = None
        self._end = 0

    def add(self, packets: list[Packet], end: int = 0) -> None:
        """Packets, and when the frame that was encoded last is to end."""
        self._end = max(self._end, end)
        for packet in packets:
            if self._held is not None:
                self._container.mux(self._held)
            self._first = packet.dts if self._first is None else self._first
            self._held = packet

    def end(self) -> None:
        if self._held is not None and self._held.dts is not None and self._first is not None:
            self._held.duration = max(1, self._end - (self._held.dts - self._first))
            self._container.mux(self._held)


def _range(frame: VideoFrame) -> ColorRange:
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return ColorRange.JPEG if full and not frame.format.is_rgb else ColorRange.MPEG


_BT601 = 6  # of ISO/IEC 23091-2, table of matrix coefficients


def _matrix(frame: VideoFrame) -> int:
    """Of RGB frames, which have none, that of the conversion."""
    return _BT601 if frame.format.is_rgb or frame.colorspace == 0 else frame.colorspace


def _picture(
    reformatter: VideoReformatter, frame: VideoFrame, shape: tuple[int, int], pts: int, time_base: Fraction
) -> VideoFrame:
    scaled = reformatter.reformat(
        frame,
        *shape,
        format="yuv420p",
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
        src_color_range=_range(frame) if not frame.format.is_rgb else None,
        dst_color_range=_range(frame),
        threads=1,
    )
    duration = frame.duration * frame.time_base if frame.duration and frame.time_base else None
    scaled.time_base, scaled.pts = time_base, pts
    scaled.duration = round(duration / time_base) if duration else 0
    scaled.pict_type = PictureType.NONE  # or the encoder would take over the source's choice of key frames
    return scaled


# ---- sound


class _Sound:
    """The first sound track of a file, as packets for another; nothing where there is none. A context manager."""

    def __init__(self, source: str):
        self.source = source
        self._container = av.open(
            os.path.abspath(source), metadata_errors="ignore", options={"protocol_whitelist": "file"}
        )
        self._stream: AudioStream | None = next(iter(self._container.streams.audio), None)
        self._out: Any = None
        self._packets: Iterator[Packet] = iter(())
        self._held: Packet | None = None

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def add_to(self, container: Any, first: VideoFrame) -> None:
        """Make a track for it, with the times counted from the first frame."""
        if self._stream is None:
            return
        start = first.pts * first.time_base if first.pts is not None and first.time_base else Fraction(0)
        if self._stream.codec_context.name in _COPIED_SOUND:
            self._out = container.add_stream_from_template(self._stream)
            self._packets = self._copied(self._stream, start)
        else:
            rate = self._stream.rate if self._stream.rate in AAC_RATES else 48_000
            self._out = container.add_stream("aac", rate=rate, layout=self._stream.layout)
            self._packets = self._transcoded(self._stream, start)

    def _copied(self, stream: AudioStream, start: Fraction) -> Iterator[Packet]:
        for packet in self._read(self._container.demux(stream)):
            if packet.dts is None or not packet.time_base:  # the empty one at the end
                continue
            shift = round(start / packet.time_base)
            packet.pts = packet.pts - shift if packet.pts is not None else None
            packet.dts -= shift
            packet.stream = self._out
            yield packet

    def _transcoded(self, stream: AudioStream, start: Fraction) -> Iterator[Packet]:
        for frame in self._read(self._container.decode(stream)):
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(start / frame.time_base)
            yield from self._out.encode(frame)
        yield from self._out.encode(None)

    def _read(self, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                item = next(items, None)
            except av.FFmpegError as error:
                raise DecodeError(f"{self.source}: its sound: {error.strerror or error}") from error
            if item is None:
                return
            yield item

    def until(self, seconds: float | None) -> Iterator[Packet]:
        """The packets up to a time; None: the rest."""
        while True:
            packet = self._held if self._held is not None else next(self._packets, None)
            self._held = None
            if packet is None:
                return
            at = packet.dts * packet.time_base if packet.dts is not None and packet.time_base else None
            if seconds is not None and at is not None and at > seconds:
                self._held = packet
                return
            yield packet
