"""Sound: which stretch of a file a sample is. What decodes it is `sound_reader`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unveil.data.boxes import Crop
from unveil.data.container import has_sound
from unveil.data.drawing import painted, spectrogram
from unveil.data.encode_sound import compressed
from unveil.data.listing import suffix
from unveil.data.measure import measure_sound
from unveil.data.row import Row
from unveil.data.sound_reader import SoundReader
from unveil.data.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from unveil.errors import DecodeError

LONGEST = 30.0
"""Seconds of a stretch that can be listened to on a page."""
DARK, BRIGHT = -1.3, 1.2
"""Normalised log energies that are drawn as black and white: silence, and what is about as loud as can be."""


@dataclass(frozen=True)
class Sound:
    """Stretches of sound, float32 [1, L] in [-1, 1]: one channel, the mean of those of the file; L = round(seconds × rate).

    Training: the stretch lies anywhere with equal chance. Testing: stretches are equidistant, the first at the beginning and
    the last at the end; a single one lies in the middle. A file that is too short is followed by silence. Of a video its sound
    track is read, with the times of its pictures.

    Args:
        seconds: a sample lasts.
        rate: samples per second; files of other rates are resampled.
    """

    seconds: float
    rate: int = 16000
    key: ClassVar[str] = "audio"
    suffixes: ClassVar[frozenset[str]] = SOUND_SUFFIXES | VIDEO_SUFFIXES
    pictures: ClassVar[bool] = False
    values: ClassVar[str] = "the waveform in [-1, 1], of one channel"
    remedy: ClassVar[str] = "sound is all that is asked of them"
    measure = staticmethod(measure_sound)

    def __post_init__(self) -> None:
        if not (0 < self.seconds < float("inf") and self.rate >= 1 and self.length >= 1):
            raise ValueError(
                f"a sample of sound lasts at least 1 / rate, not {self.seconds} s at {self.rate} per second"
            )

    @property
    def length(self) -> int:
        """Samples of a stretch: L."""
        return round(self.seconds * self.rate)

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Tensor:
        return self.moments(row, 1, generator)[0]

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        places = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
        with SoundReader(row.path) as sound:
            first, last = self._span(row, sound)
            spare = self._spare(first, last)
            return [self._cut(sound, first + min(int(place * (spare + 1)), spare), last) for place in places]

    def views(self, row: Row, clips: int = 1) -> list[Tensor]:
        if clips < 1:
            raise ValueError(f"clips must be at least 1, got {clips}")
        with SoundReader(row.path) as sound:
            first, last = self._span(row, sound)
            spare = self._spare(first, last)
            places = [spare // 2] if clips == 1 else [int(spare * view / (clips - 1)) for view in range(clips)]
            return [self._cut(sound, first + place, last) for place in places]

    def blank(self, height: int = 256, width: int = 256) -> Tensor:
        """Silence."""
        return torch.zeros(1, self.length)

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Tensor]]:
        """Sliding windows, `hop` seconds apart (None: end to end), none that holds nothing new; silence fills the last."""
        step = self.length if hop is None else max(1, round(hop * self.rate))
        with SoundReader(path) as sound:
            yield from self._windows(sound.blocks(self.rate), step)

    def _windows(self, blocks: Iterator[np.ndarray], step: int) -> Iterator[tuple[float, float, Tensor]]:
        begun = place = covered = 0
        held = np.zeros(0, np.float32)  # the samples from `begun` to `place`
        for block in blocks:
            place += len(block)
            held = np.concatenate([held, block])
            held = held[len(held) - max(0, place - begun) :]  # between windows that do not touch, nothing is kept
            while place - begun >= self.length:
                covered = begun + self.length
                yield begun / self.rate, covered / self.rate, torch.from_numpy(held[: self.length].copy())[None]
                begun += step
                held = held[step:]
        if not covered or begun < place > covered:
            x = torch.zeros(1, self.length)
            x[0, : len(held)] = torch.from_numpy(held)
            yield begun / self.rate, place / self.rate, x

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """A spectrogram, low notes at the bottom: of a waveform [1,L], or of a normalised filter bank [1,T,F] what it holds."""
        return (spectrogram(x, self.rate) if x.ndim == 2 else painted((x[0].T - DARK) / (BRIGHT - DARK)))[None]

    def heard(self, x: Tensor) -> bytes | None:
        return compressed(x, self.rate)

    @staticmethod
    def excerpt(path: str | os.PathLike[str], start: float | None, end: float | None) -> bytes | None:
        with SoundReader(path) as sound:
            since = start or 0.0
            until = min(sound.duration if end is None else end, since + LONGEST)
            return compressed(
                sound.read(since, max(until, since + 0.01), min(sound.rate, 32000)), min(sound.rate, 32000)
            )

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        with SoundReader(path) as sound:
            return sound.duration

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        """A spectrogram of the stretch, of at most half a minute."""
        with SoundReader(path) as sound:
            since = start or 0.0
            until = min(sound.duration if end is None else end, since + LONGEST)
            return spectrogram(sound.read(since, max(until, since + 0.01), 16000), 16000)

    @staticmethod
    def lacks(path: str, has_audio: bool | None = None) -> str:
        """What a file lacks that is needed, in words: a video its sound track; "" where it lacks nothing, or cannot be opened (which
        reading it will tell).

        Args:
            path: of the file.
            has_audio: where it is known, the file is not opened.
        """
        if suffix(path) not in VIDEO_SUFFIXES:
            return ""
        try:
            there = has_sound(path) if has_audio is None else has_audio
        except DecodeError:
            return ""
        return "" if there else "no sound track"

    def _span(self, row: Row, sound: SoundReader) -> tuple[int, int]:
        """The row's stretch of the file, in samples."""
        start, end = row.start or 0.0, sound.duration if row.end is None else min(row.end, sound.duration)
        if start > 0 and start >= sound.duration:
            raise DecodeError(
                f"{row.path}: the segment starts at {start:g} s, the sound ends at {sound.duration:.3f} s."
            )
        first = round(start * self.rate)
        return first, max(first + 1, round(end * self.rate))

    def _spare(self, first: int, last: int) -> int:
        return max(0, last - first - self.length)

    def _cut(self, sound: SoundReader, first: int, last: int) -> Tensor:
        x, filled = torch.zeros(1, self.length), 0
        for block in sound.blocks(self.rate, first, min(first + self.length, last)):
            x[0, filled : filled + len(block)] = torch.from_numpy(block)
            filled += len(block)
        return x
