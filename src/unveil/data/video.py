"""Frames of video files: a probe, random access, a stream, and sliding windows over it.

Seconds count from the first frame; pixels are uint8 RGB as a player shows them (see `video_reader`).
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from unveil.data.video_reader import VideoReader
from unveil.errors import DecodeError


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Args:
        path: the file.
        duration: seconds.
        fps: frames per second, the mean where it varies.
        num_frames: as the container says, otherwise estimated from `duration` and `fps`.
        width, height: as shown, after rotation.
        has_audio: whether there is a sound track.
        codec: FFmpeg's name of the decoder.
        rotation: clockwise degrees (0, 90, 180, 270) that the display matrix asks for; already applied to frames.
    """

    path: str
    duration: float
    fps: float
    num_frames: int
    width: int
    height: int
    has_audio: bool
    codec: str
    rotation: int


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """What a video holds; decodes one frame, since orientation is written there.

    Raises:
        DecodeError: the file cannot be opened or its first frame cannot be decoded.
    """
    with VideoReader(path) as video:
        frame = next((frame for _, frame in video.decode()), None)
        if frame is None:
            raise DecodeError(f"{path}: no frame could be decoded.")
        height, width = video.rgb(frame).shape[:2]
        return VideoInfo(
            path=str(path),
            duration=video.duration,
            fps=video.fps,
            num_frames=video.num_frames,
            width=width,
            height=height,
            has_audio=video.has_audio,
            codec=video.codec,
            rotation=round(-frame.rotation / 90) * 90 % 360,
        )


def read_frames(
    path: str | os.PathLike[str],
    times: Sequence[float] | None = None,
    indices: Sequence[int] | None = None,
    threads: int = 1,
    thread_type: str = "SLICE",
) -> Tensor:
    """Frames of a video, uint8 [T,H,W,3] RGB, in the order asked for.

    Decodes from the key frame before the first to the last that is wanted. Past the end is the last frame.

    Args:
        path: the file.
        times: seconds from the first frame.
        indices: positions in presentation order (instead of `times`); both None: every frame.
        threads, thread_type: see `VideoReader`.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    if times is not None and indices is not None:
        raise ValueError("give times or indices, not both")
    with VideoReader(path, threads, thread_type) as video:
        if indices is not None:
            return video.read_indices(indices)
        if times is not None:
            return video.read(times)
        return torch.from_numpy(np.stack([video.rgb(frame) for _, frame in video.each()]))


def frames(
    path: str | os.PathLike[str],
    fps: float | None = None,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    threads: int = 1,
    thread_type: str = "SLICE",
) -> Iterator[tuple[float, Tensor]]:
    """A video as a stream of (seconds, uint8 [H,W,3]); one frame is held at once.

    Args:
        path: the file.
        fps: so many frames per second, the one shown at each moment; None: those of the file.
        stride: without `fps`, each how-manyth frame.
        start, end: seconds; from the frame shown at `start` to before `end`.
        threads, thread_type: see `VideoReader`.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    begin, stop = start or 0.0, np.inf if end is None else end
    if fps is not None and (fps <= 0 or stride != 1):
        raise ValueError("fps must be positive and comes without a stride")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    with VideoReader(path, threads, thread_type) as video:
        if fps is not None:
            for time, frame in video.shown(_every(1 / fps, begin, stop)):
                yield time, torch.from_numpy(video.rgb(frame).copy())
            return
        for time, frame in video.each(stride, begin, stop):
            yield time, torch.from_numpy(video.rgb(frame).copy())


def _every(step: float, start: float, stop: float) -> Iterator[float]:
    number = 0
    while (time := start + number * step) < stop:
        yield time
        number += 1


def windows(
    path: str | os.PathLike[str],
    frames: int,
    stride: int,
    hop: float | None = None,
    start: float | None = None,
    end: float | None = None,
    threads: int = 1,
    thread_type: str = "SLICE",
) -> Iterator[tuple[float, float, Tensor]]:
    """Sliding windows over a video of any length: (start, end, uint8 [T,H,W,3]), seconds.

    Only the frames of the windows that are open at once are in memory. The last window is filled up with its last
    frame; there is always at least one, and none that shows nothing new.

    Args:
        path: the file.
        frames, stride: T frames, `stride` frames (of the file's mean rate) apart; a window lasts frames × stride.
        hop: seconds from one window's start to the next; None: each begins where the last one ends.
        start, end: the part of the video that is covered.
        threads, thread_type: see `VideoReader`.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    if frames < 1 or stride < 1 or (hop is not None and hop <= 0):
        raise ValueError(f"frames, stride and hop must be positive, got {frames}, {stride}, {hop}")
    with VideoReader(path, threads, thread_type) as video:
        begin, stop = start or 0.0, np.inf if end is None else end
        step = stride / video.fps
        length = frames * step
        hop = length if hop is None else hop
        half = 0.5 / video.fps
        # The middle of each frame's time, so that rounded clocks do not tip a choice into the neighbour. The last moment
        # of a window, after its `frames` places, tells that the video goes on to the window's end.
        places = [*(place * step for place in range(frames)), length - 2 * half]
        schedule, asked = tee(_window_times(begin + half, stop, places, hop))
        open_windows: deque[tuple[int, list[np.ndarray]]] = deque()
        emitted = False

        def covers_more(number: int, until: float) -> bool:
            return number == 0 or begin + (number - 1) * hop + length < until - half

        for (_, number, place), (_, frame) in zip(schedule, video.shown(time for time, _, _ in asked), strict=False):
            if place == 0:
                open_windows.append((number, []))
            window = open_windows[number - open_windows[0][0]][1]
            if place < frames:
                window.append(video.rgb(frame))
            else:
                open_windows.popleft()  # windows fill in the order in which they opened
                if covers_more(number, stop):
                    begun = begin + number * hop
                    emitted = True
                    yield begun, min(begun + length, stop), torch.from_numpy(np.stack(window))
        until = stop if video.end is None else min(stop, video.end)
        for number, window in open_windows:
            if covers_more(number, until):
                begun = begin + number * hop
                window += [window[-1]] * (frames - len(window))
                emitted = True
                yield begun, min(begun + length, until), torch.from_numpy(np.stack(window))
        if not emitted:  # the part asked for holds no frame of its own: the one shown then
            yield begin, min(begin + length, max(begin, until)), video.read([begin] * frames)


def _window_times(start: float, stop: float, places: Sequence[float], hop: float) -> Iterator[tuple[float, int, int]]:
    """(time, window, place in the window), ascending in time, for windows that start a `hop` apart, without end."""
    coming = [(start, 0, 0)]
    while coming:
        time, number, place = heapq.heappop(coming)
        if time >= stop:
            return
        yield time, number, place
        if place == 0:
            heapq.heappush(coming, (start + (number + 1) * hop, number + 1, 0))
        if place + 1 < len(places):
            heapq.heappush(coming, (start + number * hop + places[place + 1], number, place + 1))
