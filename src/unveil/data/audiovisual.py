"""The picture and the sound of a clip, cut at the same moments of its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unveil.data.boxes import Crop
from unveil.data.clips import Dense
from unveil.data.manifest import Row
from unveil.data.measure import measure_video
from unveil.data.signal import Signal, Silent
from unveil.data.signals import Video, span
from unveil.data.sound import Sound
from unveil.data.sound_reader import SoundReader
from unveil.data.suffixes import VIDEO_SUFFIXES
from unveil.data.video_reader import VideoReader
from unveil.errors import DecodeError

Missing = Literal["drop", "blank"]
"""What becomes of a clip without a sound track: it is left out, or kept with silence."""


@dataclass(frozen=True)
class Audiovisual(Silent):
    """Clips with their sound: {"video": uint8 [T, C, H, W], "audio": float32 [1, L]}.

    The sound lasts `sound.seconds`. Its middle is that of the clip, unless it would then begin before the file (or the row's segment)
    does, or end after it. Of a clip whose frames span as many seconds it is exactly what sounds meanwhile. Seconds are those of the
    container, of both: a sound track that starts late is silent before, and one that ends early is silent after.

    Args:
        video: which frames.
        sound: how much sound, at which rate.
        missing: "blank" reads a file without a sound track as silent; with "drop" it cannot be read, and is left out before a run
            begins. A track that is silent is a sound track.

    What a sample sounds like is asked of the stream itself.
    """

    video: Video
    sound: Sound
    missing: Missing = "drop"
    key: ClassVar[str] = "both"
    suffixes: ClassVar[frozenset[str]] = VIDEO_SUFFIXES
    pictures: ClassVar[bool] = True
    values: ClassVar[str] = f"video: {Video.values}; audio: {Sound.values}"
    remedy: ClassVar[str] = "`--missing blank` keeps such files, with silence"
    measure = staticmethod(measure_video)

    @property
    def streams(self) -> dict[str, Signal]:
        return {self.video.key: self.video, self.sound.key: self.sound}

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> dict[str, Tensor]:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            times = self.video.clip.times(start, end, video.fps, generator)
            picture = video.read(times, crop).permute(0, 3, 1, 2)
            return {self.video.key: picture, self.sound.key: self._sounds(row, video, [stretch(times, video.fps)])[0]}

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[dict[str, Tensor]]:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            return self._clips(
                row, video, [self.video.clip.times(start, end, video.fps, generator) for _ in range(count)]
            )

    def views(self, row: Row, clips: int = 1) -> list[dict[str, Tensor]]:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            return self._clips(row, video, self.video.clip.views(start, end, video.fps, clips))

    def blank(self, height: int = 256, width: int = 256) -> dict[str, Tensor]:
        return {stream.key: stream.blank(height, width) for stream in (self.video, self.sound)}

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, dict[str, Tensor]]]:
        """The windows of the picture, each with the sound about its middle."""
        row = Row(os.fspath(path))
        with ExitStack() as stack:
            video = stack.enter_context(VideoReader(row.path))
            sound = self._opened(row, video, stack)
            for start, end, picture in self.video.windows(path, hop):
                begun, clip = start or 0.0, self.video.clip
                # The last window of a file may be filled up: its sound begins where it does, and silence follows.
                until = begun + clip.frames * clip.stride / video.fps if isinstance(clip, Dense) else end or begun
                heard = self._cut(row, video, sound, (begun, until))
                yield start, end, {self.video.key: picture, self.sound.key: heard}

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """The frames; what is heard is drawn by the stream itself."""
        return self.video.drawn(x, mean, std)

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        return Video.glimpse(path, start, end)

    @staticmethod
    def excerpt(path: str | os.PathLike[str], start: float | None, end: float | None) -> bytes | None:
        return None if Sound.lacks(os.fspath(path)) else Sound.excerpt(path, start, end)

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        return Video.lasts(path)

    def lacks(self, path: str, has_audio: bool | None = None) -> str:
        """What a file lacks that is needed, in words: its sound track, unless silence stands in for it. See `Sound.lacks`."""
        return "" if self.missing == "blank" else Sound.lacks(path, has_audio)

    def _clips(self, row: Row, video: VideoReader, clips: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
        frames = video.read([time for clip in clips for time in clip]).permute(0, 3, 1, 2)  # decodes once for all
        pictures = frames.split([len(clip) for clip in clips])
        sounds = self._sounds(row, video, [stretch(clip, video.fps) for clip in clips])
        return [
            {self.video.key: picture, self.sound.key: sound} for picture, sound in zip(pictures, sounds, strict=True)
        ]

    def _sounds(self, row: Row, video: VideoReader, clips: Sequence[tuple[float, float]]) -> list[Tensor]:
        with ExitStack() as stack:
            sound = self._opened(row, video, stack)
            return [self._cut(row, video, sound, clip) for clip in clips]

    def _opened(self, row: Row, video: VideoReader, stack: ExitStack) -> SoundReader | None:
        """The sound track; None where there is none, and silence is wanted in its place.

        Raises:
            DecodeError: there is none.
        """
        if video.has_audio:
            return stack.enter_context(SoundReader(row.path))
        if self.missing == "blank":
            return None
        raise DecodeError(f"{row.path}: has no sound track (--missing blank keeps such files, with silence).")

    def _cut(self, row: Row, video: VideoReader, sound: SoundReader | None, clip: tuple[float, float]) -> Tensor:
        """The sound about a stretch of the file, float32 [1, L]; silence where it has none."""
        x = torch.zeros(1, self.sound.length)
        if sound is None:
            return x
        start, end = span(row, video)
        since = about(clip, start, end, self.sound.seconds)
        # A segment's sound ends with it; that of a whole file may go on after the last frame.
        until = since + self.sound.seconds if row.end is None else min(since + self.sound.seconds, end)
        part = sound.read(since, until, self.sound.rate)[:, : x.shape[1]]
        x[:, : part.shape[1]] = part
        return x


def about(clip: tuple[float, float], start: float, end: float, length: float) -> float:
    """When a sound begins that lasts `length` seconds and whose middle is that of a clip.

    Where it would begin before `start` or end after `end` it is moved, but never so far that a part of the clip is not heard
    of which all could be.
    """
    first, last = clip
    begun = max(start, min((first + last - length) / 2, end - length))
    # Both lengths are sums of fractions: equal ones may differ in their last digits.
    return begun if length < last - first - 1e-6 else min(max(begun, last - length), first)


def stretch(times: Sequence[float], fps: float) -> tuple[float, float]:
    """From when to when a clip lasts: each of its frames until the next one of it, the last as long as those before."""
    first = times[0] - 0.5 / fps  # clips are made of the middles of frames
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / fps
    return first, first + len(times) * step
