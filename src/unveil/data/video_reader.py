"""Times → frames of one video file, exact and from the nearest key frame.

The frame at a time is the one a player shows then: the last whose presentation time is not later. Orientation (the display
matrix that phones write) is applied; alpha is dropped; every pixel format becomes 8-bit RGB.

Two ways lead to the same frames. Where packets tell which frame is shown when, only those are decoded that a wanted frame
needs (see `lookahead`). Everywhere else, and wherever that goes wrong, all are decoded, from a key frame before the first
wanted one to the frame after the last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeAlias

import numpy as np
import torch
from av.packet import Packet as AnyPacket
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from unveil.data.boxes import Box, Crop
from unveil.data.lookahead import REORDER, AtTimes, Choice, EachNth, Lookahead, UnclearError
from unveil.data.picture import Pictures
from unveil.data.video_file import VideoFile
from unveil.errors import DecodeError

Shown = tuple[float, VideoFrame]
Packet: TypeAlias = "AnyPacket[VideoStream]"  # generic to the type checker alone


class VideoReader(VideoFile):
    """An open video file; a context manager. Arguments and errors are those of `VideoFile`."""

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, thread_type: str = "SLICE"):
        super().__init__(path, threads, thread_type)
        self._pictures = Pictures(self._size[1], self._size[0])
        self._rgb: tuple[VideoFrame, np.ndarray] | None = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- all frames

    def decode(self, time: float = 0.0) -> Iterator[Shown]:
        """Frames in presentation order with their times, beginning with one shown at `time` or before."""
        packets, first_pts = self._packets_for(time)
        frames = self._frames(packets, first_pts)
        if first_pts is not None:
            first = next(frames, None)
            # Intra-refresh streams give nothing until they have recovered, which can be after `time`.
            if first is not None and first[0] <= time + self.tolerance:
                yield first
                yield from frames
                return
            self._rewind()
            frames = self._frames(self._packets(), None)
        yield from frames

    def _frames(self, packets: Iterator[Packet], first: int | None) -> Iterator[Shown]:
        """Decode packets; `first`: drop what is shown earlier (an open GOP's leading frames lack their references)."""
        number, latest, shown_until = 0, -np.inf, 0.0
        tick: int | None = None
        for packet in packets:
            with self._reported():
                frames = packet.decode()
            for frame in frames:
                pts = frame.pts
                if self._by_dts:  # those that come out at the end have no time, but follow those before
                    tick = pts = frame.dts if frame.dts is not None else tick and tick + 1
                    if tick is None and first is not None:
                        return
                if first is not None and pts is not None and pts < first:
                    continue
                time = number / self.fps if pts is None or self._start is None else self.seconds(pts)
                latest = max(latest, time)  # a broken clock never runs backwards
                number += 1
                length = frame.duration * self._time_base if frame.duration and self._start is not None else 0.0
                shown_until = latest + (length or 1 / self.fps)
                yield latest, frame
        if number:
            self.check_gap(latest, shown_until)
            self.end = shown_until

    # ---- wanted frames

    def shown(self, times: Iterable[float], clamp: bool = False) -> Iterator[Shown]:
        """For each of the ascending `times`, that time and the frame shown then; few frames are held at once.

        A time before the first frame gives the first. The iteration ends with the video, unless `clamp`: then the last
        frame is given for every time after it.

        Raises:
            DecodeError: also for a time at which the container says there is a frame, where the file is cut short.
        """
        choice = AtTimes(times, self, clamp)
        rest = choice.rest()
        while choice.next is not None and self._foretold:
            begun = choice.next
            lookahead, packets = self._lookahead(choice, begun)

            def enough(begun: float = begun, lookahead: Lookahead[Packet] = lookahead) -> bool:
                if choice.next is None or lookahead.latest is None:
                    return choice.next is None
                now = self.seconds(lookahead.latest)
                # An index goes by decoding time: what it finds can be too late for `begun`, and will be again.
                return choice.next > max(now, begun) and self._key_frame_between(now, choice.next)

            try:
                yield from self._chosen(lookahead, packets, enough)
            except UnclearError:
                self._foretold = False
                rest = chain([time for _, moments in lookahead.wanted for time in moments], rest)
                break
            if choice.ended:
                if choice.next is not None:
                    self.check_end(choice.next)
                return
        yield from self._shown_of_all(rest, clamp)

    def each(self, stride: int = 1, start: float = 0.0, end: float = np.inf) -> Iterator[Shown]:
        """Each `stride`-th frame with its time, from the one shown at `start` to before `end` (seconds)."""
        given = 0
        if stride > 1 and self._foretold:
            choice = EachNth(stride, start, end, self)
            lookahead, packets = self._lookahead(choice, start)
            try:
                for shown in self._chosen(lookahead, packets, lambda: choice.done):
                    given += 1
                    yield shown
                if not choice.done:
                    self.check_end(end)
                return
            except UnclearError:
                self._foretold = False
        yield from islice(self._each_of_all(stride, start, end), given, None)

    def _lookahead(self, choice: Choice, time: float) -> tuple[Lookahead[Packet], Iterator[Packet]]:
        packets, first = self._packets_for(time)
        return Lookahead(choice, self._disposable, self._entry, first, REORDER if self._reordered else 0), packets

    def _chosen(
        self, lookahead: Lookahead[Packet], packets: Iterator[Packet], enough: Callable[[], bool]
    ) -> Iterator[Shown]:
        """The frames that `lookahead` wants, until there is `enough` or the video ends."""
        for packet in packets:
            if packet.size == 0:  # the end
                yield from self._decoded(lookahead.end(), lookahead)
                break
            released = lookahead.add(packet)
            if released:  # most packets wait: this is asked some hundred times a clip
                yield from self._decoded(released, lookahead)
            if enough():
                yield from self._decoded(lookahead.finish(), lookahead)
                break
        if lookahead.latest is None:
            raise DecodeError(f"{self.path}: no frame could be decoded.")
        if lookahead.wanted:
            yield from self._decoded([None], lookahead)
        if lookahead.wanted:  # what a packet promised did not come
            raise UnclearError

    def _decoded(self, packets: Iterable[Packet | None], lookahead: Lookahead[Packet]) -> Iterator[Shown]:
        with self._reported():
            for packet in packets:
                frames = packet.decode() if packet is not None else self._stream.decode(None)
                if packet is None:
                    self._stream.codec_context.flush_buffers()
                for frame in frames:
                    if not lookahead.wanted:
                        break
                    pts, moments = lookahead.wanted[0]
                    if frame.pts is None or frame.pts > pts:
                        raise UnclearError
                    if frame.pts == pts:
                        lookahead.wanted.popleft()
                        for time in moments:
                            yield time, frame

    # ---- the same by decoding everything

    def _shown_of_all(self, times: Iterable[float], clamp: bool) -> Iterator[Shown]:
        frames: Iterator[Shown] | None = None
        now: Shown | None = None
        following: Shown | None = None
        for time in times:
            limit = time + self.tolerance
            if frames is None or (following and self._key_frame_between(following[0], time)):
                frames = self.decode(time)
                now = following = next(frames, None)
                if now is None:
                    raise DecodeError(f"{self.path}: no frame could be decoded.")
            while following is not None and following[0] <= limit:
                now = following
                following = next(frames, None)
            assert now is not None
            if following is not None:
                self.check_gap(now[0], following[0])
            elif self.end is not None and time >= self.end - 1e-9:
                self.check_end(time)
                if not clamp:
                    return
            yield time, now[1]

    def _each_of_all(self, stride: int, start: float, end: float) -> Iterator[Shown]:
        number = 0
        held: Shown | None = None  # the latest frame before `start` that could be the one shown
        for time, frame in self.decode(start):
            if time >= end:
                break
            if time <= start + self.tolerance:
                held = (time, frame)
                continue
            for shown in ([held] if held else []) + [(time, frame)]:
                if number % stride == 0:
                    yield shown
                number += 1
            held = None
        else:
            self.check_end(end)
        if held is not None:
            yield held

    # ---- pictures

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """A decoded frame as it is meant to be seen: uint8 [H,W,3], not to be written to."""
        if self._rgb is None or self._rgb[0] is not frame:
            with self._reported():
                self._rgb = (frame, self._pictures.of(frame))
        return self._rgb[1]

    def read(self, times: Sequence[float], crop: Crop | None = None) -> Tensor:
        """The frames shown at `times` (seconds, any order), uint8 [T,H,W,3]; the last frame past the end.

        Args:
            times: at least one.
            crop: the part of them that is wanted, given the height and width as shown; the rest is not even converted.
        """
        order = sorted(range(len(times)), key=times.__getitem__)
        return self._stacked(order, self.shown((times[i] for i in order), clamp=True), crop)

    def read_indices(self, indices: Sequence[int]) -> Tensor:
        """The frames at `indices` in presentation order, uint8 [T,H,W,3]; the last frame past the end."""
        if any(index < 0 for index in indices):
            raise ValueError(f"frame indices start at 0, got {min(indices)}")
        order = sorted(range(len(indices)), key=indices.__getitem__)
        timing = self._scan() if self._seekable and not self._by_dts else None
        pts = timing.pts if timing else None
        if timing and pts is not None and self._start is not None and len(set(pts)) == len(pts):
            if any(index >= len(pts) for index in indices):
                self.end = self.seconds(pts[0]) + (timing.duration or 0.0)
                self.check_end(np.inf)
            wanted = [pts[min(indices[i], len(pts) - 1)] for i in order]
            found = list(self.shown([self.seconds(value) for value in wanted], clamp=True))
            # A packet is a frame nearly always; where one was not (hidden, dropped), frames are counted instead.
            if all(frame.pts == value for value, (_, frame) in zip(wanted, found, strict=True)):
                return self._stacked(order, iter(found))
        return self._stacked(order, self._counted([indices[i] for i in order]))

    def _counted(self, indices: Sequence[int]) -> Iterator[Shown]:
        frames = enumerate(self.decode())
        number, (time, frame) = next(frames, (0, (0.0, None)))
        if frame is None:
            raise DecodeError(f"{self.path}: no frame could be decoded.")
        for index in indices:
            while number < index:
                following = next(frames, None)
                if following is None:
                    self.check_end(np.inf)
                    break
                number, (time, frame) = following
            yield time, frame

    def _stacked(self, order: Sequence[int], frames: Iterator[Shown], crop: Crop | None = None) -> Tensor:
        out: np.ndarray | None = None
        box: Box | None = None
        before: tuple[VideoFrame, int] | None = None
        for position, (_, frame) in zip(order, frames, strict=True):
            if out is None:
                size = self._pictures.size(frame)
                box = crop(*size) if crop is not None else None
                out = np.empty((len(order), *(size if box is None else (box.height, box.width)), 3), np.uint8)
            if before is not None and before[0] is frame:
                out[position] = out[before[1]]
            else:
                with self._reported():
                    self._pictures.of(frame, out[position], box)
            before = (frame, position)
        if out is None:
            raise ValueError("no frame was asked for")
        return torch.from_numpy(out)
