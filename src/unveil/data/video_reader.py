"""One open video file: times → frames, exact and from the nearest key frame.

Time is in seconds from the first frame of the video, whatever the container's own clock starts at. The frame at a time
is the one a player shows then: the last whose presentation time is not later. Orientation (the display matrix that
phones write) is applied; alpha is dropped; every pixel format becomes 8-bit RGB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import av
import numpy as np
import torch
from av.container.input import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from unveil.errors import DecodeError

# Their frames build on the ones before, though every packet (or none) is marked as a key frame.
_WITHOUT_KEY_FRAMES = {"gif", "apng"}
_SEEK_BACK = (0.0, 1.0, 4.0, 16.0)  # seconds before the wanted time at which a key frame is looked for, in turn


class _Timing(NamedTuple):
    pts: list[int] | None  # presentation times in order; None when packets carry none
    packets: int
    duration: float | None  # seconds


class VideoReader:
    """An open video file; a context manager.

    Args:
        path: the file.
        threads: decoder threads, 0 for one per core. Worker processes want 1.
        thread_type: "SLICE" (no delay), "FRAME" or "AUTO".

    Raises:
        DecodeError: no such file, no video in it, or the decoder gave up; here and in every method.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, thread_type: str = "SLICE"):
        self.path = str(path)
        self.threads = threads
        self.thread_type = thread_type
        self.end: float | None = None  # when the last frame stops being shown; known once it was decoded
        self._reformatter = VideoReformatter()
        self._rgb: tuple[VideoFrame, np.ndarray] | None = None
        self._container: InputContainer | None = None
        self._open()
        # All of it before anything reopens the file: a stream of a closed container is a dangling pointer in PyAV.
        stream = self._stream
        self._size = (stream.codec_context.width, stream.codec_context.height)
        self._time_base = float(stream.time_base or 1)
        self._seekable = self._format not in _WITHOUT_KEY_FRAMES
        self.codec = stream.codec_context.name
        num_frames = stream.frames
        fps, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or stream.average_rate or 25)
        duration = None
        if stream.duration is not None:
            duration = stream.duration * self._time_base
        elif self._container_duration is not None:
            duration = self._container_duration / av.time_base
        self._start = stream.start_time
        if self._start is None or self._format == "avi":  # avi has decoding times only: B-frames are shown later
            self._start = self._first_pts()
        timing: _Timing | None = None
        # Some muxers write their clock (1000, 90000) as the rate; then, as without any, the packets are counted.
        if self._start is None or not duration or duration <= 0 or not 0 < fps <= 240:
            timing = self._scan()
            if timing.pts is None:  # a bare stream: frames come at the coded rate
                fps = guessed
                duration = timing.packets / fps
            else:
                duration = timing.duration or 0.0
                fps = timing.packets / duration if duration > 0 else 25.0
        assert duration is not None
        self.fps = fps
        self.duration = duration
        self.num_frames = num_frames or (timing.packets if timing else 0) or max(1, round(duration * fps))
        # Containers round times to their clock, so a time computed as n/fps may lie just before frame n's.
        self._tolerance = (self._time_base / 2 if self._time_base <= 1 / fps / 4 else 0.0) + 1e-6

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    # ---- opening

    def _open(self) -> None:
        self.close()
        with self._reported():
            # Absolute, since "12:30.mp4" reads as a protocol; and a playlist must not reach the network.
            container = av.open(
                os.path.abspath(self.path), metadata_errors="ignore", options={"protocol_whitelist": "file"}
            )
        self._container = container
        covers = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers]
        if not streams:
            self.close()
            raise DecodeError(f"{self.path}: holds no video stream.")
        self._stream: VideoStream = streams[0]
        self._format = container.format.name
        self._container_duration = container.duration
        self.has_audio = bool(container.streams.audio)
        self._fresh = True
        if self._stream.codec_context is None:
            self.close()
            raise DecodeError(f"{self.path}: no decoder for its video stream.")
        self._stream.thread_type = self.thread_type
        self._stream.codec_context.thread_count = self.threads

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise ValueError(f"{self.path} is closed")
        return self._container

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            words = error.strerror or str(error)
            raise DecodeError(f"{self.path}: {words}") from error

    def _packets(self) -> Iterator[av.Packet]:
        self._fresh = False
        packets = self._opened().demux(self._stream)
        while True:
            with self._reported():
                packet = next(packets, None)
            if packet is None:
                return
            yield packet

    def _rewind(self) -> None:
        if not self._fresh:
            self._open()  # exact for every format; seeking to zero is not

    def _first_pts(self) -> int | None:
        pts = next((packet.pts for packet in self._packets()), None)
        self._rewind()
        return pts

    def _scan(self) -> _Timing:
        self._rewind()
        pts: list[int] = []
        count, last, timed = 0, 0, True
        for packet in self._packets():
            if packet.size == 0 or packet.is_discard:  # the flush at the end; cut away by an edit list
                continue
            count += 1
            if packet.pts is None:
                timed = False
            else:
                pts.append(packet.pts)
                last = max(last, packet.pts + (packet.duration or 0))
        self._rewind()
        if not count:
            raise DecodeError(f"{self.path}: its video stream is empty.")
        if not timed:
            return _Timing(None, count, None)
        pts.sort()
        if last == pts[-1] and count > 1:  # no duration on the last packet: as long as the others
            last += (pts[-1] - pts[0]) // (count - 1)
        return _Timing(pts, count, (last - pts[0]) * self._time_base)

    # ---- decoding

    def decode(self, time: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
        """Frames in presentation order with their times, beginning with one shown at `time` or before."""
        self._opened()
        if time > self._tolerance and self._seekable and self._start is not None:
            wanted = self._start + int((time + self._tolerance) / self._time_base)
            frames = self._from_key_frame(wanted)
            first = next(frames, None)
            # Intra-refresh streams give nothing until they have recovered, which can be after `time`.
            if first is not None and first[0] <= time + self._tolerance:
                yield first
                yield from frames
                return
        self._rewind()
        yield from self._frames(self._packets(), None)

    def _from_key_frame(self, wanted: int) -> Iterator[tuple[float, VideoFrame]]:
        # A demuxer seeks by decoding time, and a key frame decoded before `wanted` may be shown after it.
        assert self._start is not None
        for back in _SEEK_BACK:
            offset = wanted - int(back / self._time_base)
            if offset <= self._start:
                return
            try:
                self._opened().seek(offset, stream=self._stream)
            except av.FFmpegError:  # not a seekable file: the caller reads it from the start
                self._fresh = False
                return
            packets = self._packets()
            key = next((p for p in packets if p.is_keyframe or p.size == 0), None)
            if key is not None and key.size and key.pts is not None and key.pts <= wanted:

                def rest(key: av.Packet = key, packets: Iterator[av.Packet] = packets) -> Iterator[av.Packet]:
                    yield key
                    yield from packets

                yield from self._frames(rest(), key.pts)
                return

    def _frames(self, packets: Iterator[av.Packet], first: int | None) -> Iterator[tuple[float, VideoFrame]]:
        """Decode packets; `first`: drop what is shown earlier (an open GOP's leading frames lack their references)."""
        number, latest = 0, -np.inf
        for packet in packets:
            with self._reported():
                frames = packet.decode()
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                pts = frame.pts
                if first is not None and pts is not None and pts < first:
                    continue
                if pts is None or self._start is None:
                    time = number / self.fps
                else:
                    time = (pts - self._start) * self._time_base
                latest = max(latest, time)  # a broken clock never runs backwards
                number += 1
                length = frame.duration * self._time_base if frame.duration and self._start is not None else 0.0
                self._shown_until = latest + (length or 1 / self.fps)
                yield latest, frame
        if number:
            self.end = self._shown_until

    def shown(self, times: Iterable[float], clamp: bool = False) -> Iterator[tuple[float, VideoFrame]]:
        """For each of the ascending `times`, that time and the frame shown then; one frame is held at once.

        A time before the first frame gives the first. The iteration ends with the video, unless `clamp`: then the last
        frame is given for every time after it.
        """
        frames: Iterator[tuple[float, VideoFrame]] | None = None
        now: tuple[float, VideoFrame] | None = None
        following: tuple[float, VideoFrame] | None = None
        for time in times:
            limit = time + self._tolerance
            if frames is None or (following and self._key_frame_between(following[0], time)):
                frames = self.decode(time)
                now = following = next(frames, None)
                if now is None:
                    raise DecodeError(f"{self.path}: no frame could be decoded.")
            while following is not None and following[0] <= limit:
                now = following
                following = next(frames, None)
            assert now is not None
            if following is None and not clamp and self.end is not None and time >= self.end - 1e-9:
                return
            yield time, now[1]

    def _key_frame_between(self, now: float, then: float) -> bool:
        """Whether seeking to `then` saves decoding, going by the container's index (none: no)."""
        if not self._seekable or self._start is None or then <= now:
            return False
        entries = getattr(self._stream, "index_entries", None)
        if not entries:
            return False
        found = entries.search_timestamp(self._start + int(then / self._time_base))
        return found >= 0 and (entries[found].timestamp - self._start) * self._time_base > now

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """A decoded frame as it is meant to be seen: uint8 [H,W,3]."""
        if self._rgb is not None and self._rgb[0] is frame:
            return self._rgb[1]
        # A stream may change its size on the way; its frames are brought to the first one's.
        # One thread: by default swscale starts one per core for every frame, which costs twenty times a small frame's
        # conversion, and workers already share the cores.
        with self._reported():
            picture = self._reformatter.reformat(frame, *self._size, format="rgb24", threads=1)
        array = _oriented(picture.to_ndarray(), _display_matrix(frame))
        self._rgb = (frame, array)
        return array

    def read(self, times: Sequence[float]) -> Tensor:
        """The frames shown at `times` (seconds, any order), uint8 [T,H,W,3]; the last frame past the end."""
        order = sorted(range(len(times)), key=times.__getitem__)
        return self._stacked(order, self.shown((times[i] for i in order), clamp=True))

    def read_indices(self, indices: Sequence[int]) -> Tensor:
        """The frames at `indices` in presentation order, uint8 [T,H,W,3]; the last frame past the end."""
        if any(index < 0 for index in indices):
            raise ValueError(f"frame indices start at 0, got {min(indices)}")
        order = sorted(range(len(indices)), key=indices.__getitem__)
        pts = self._scan().pts if self._seekable else None
        if pts is not None and self._start is not None and len(set(pts)) == len(pts):
            wanted = [pts[min(indices[i], len(pts) - 1)] for i in order]
            times = [(value - self._start) * self._time_base for value in wanted]
            found = list(self.shown(times, clamp=True))
            # A packet is a frame nearly always; where one was not (hidden, dropped), frames are counted instead.
            if all(frame.pts == value for value, (_, frame) in zip(wanted, found, strict=True)):
                return self._stacked(order, iter(found))
        return self._stacked(order, self._counted([indices[i] for i in order]))

    def _counted(self, indices: Sequence[int]) -> Iterator[tuple[float, VideoFrame]]:
        frames = enumerate(self.decode())
        number, (time, frame) = next(frames, (0, (0.0, None)))
        if frame is None:
            raise DecodeError(f"{self.path}: no frame could be decoded.")
        for index in indices:
            while number < index:
                following = next(frames, None)
                if following is None:
                    break
                number, (time, frame) = following
            yield time, frame

    def _stacked(self, order: Sequence[int], frames: Iterator[tuple[float, VideoFrame]]) -> Tensor:
        out: np.ndarray | None = None
        for position, (_, frame) in zip(order, frames, strict=True):
            array = self.rgb(frame)
            if out is None:
                out = np.empty((len(order), *array.shape), np.uint8)
            out[position] = array
        if out is None:
            raise ValueError("no frame was asked for")
        return torch.from_numpy(out)


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The linear part [2,2] of the frame's display matrix: (x, y) @ M is where a pixel is shown."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def _oriented(array: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """[H,W,3] turned and mirrored in quarter turns as the display matrix says."""
    if matrix is None or not matrix.any():
        return array
    (a, b), (c, d) = matrix
    if abs(int(b)) + abs(int(c)) > abs(int(a)) + abs(int(d)):  # the axes change places
        array = array.transpose(1, 0, 2)
        across, down = c, b
    else:
        across, down = a, d
    array = array[::-1] if down < 0 else array
    array = array[:, ::-1] if across < 0 else array
    return np.ascontiguousarray(array)
