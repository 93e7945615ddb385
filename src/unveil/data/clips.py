"""Which moments of a video make a clip. Pure arithmetic: seconds in, seconds out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import torch


class Clip(Protocol):
    """A way of choosing `frames` moments of a video."""

    @property
    def frames(self) -> int: ...

    def times(self, start: float, end: float, fps: float, generator: torch.Generator | None = None) -> list[float]:
        """Moments of one random clip between `start` and `end` (seconds), ascending."""
        ...

    def views(self, start: float, end: float, fps: float, clips: int) -> list[list[float]]:
        """Moments of `clips` test clips, spread evenly and deterministically."""
        ...


@dataclass(frozen=True)
class Dense:
    """`frames` frames, `stride` frames apart (SlowFast's T × τ, arXiv:1812.03982 section 4; VideoMAE).

    Training: the clip lies anywhere with equal chance. Testing: clips are equidistant, the first at the beginning and the
    last at the end (VideoMAE's test set); a single one lies in the middle. A video that is too short repeats its last frame.
    """

    frames: int
    stride: int

    def __post_init__(self) -> None:
        _positive(frames=self.frames, stride=self.stride)

    def times(self, start: float, end: float, fps: float, generator: torch.Generator | None = None) -> list[float]:
        spare = self._spare(start, end, fps)
        first = min(int(torch.rand((), generator=generator, dtype=torch.float64).item() * (spare + 1)), spare)
        return self._at(first, start, end, fps)

    def views(self, start: float, end: float, fps: float, clips: int) -> list[list[float]]:
        _positive(clips=clips)
        spare = self._spare(start, end, fps)
        if clips == 1:
            return [self._at(spare // 2, start, end, fps)]
        return [self._at(int(spare * view / (clips - 1)), start, end, fps) for view in range(clips)]

    def _spare(self, start: float, end: float, fps: float) -> int:
        return max(0, round((end - start) * fps) - (self.frames - 1) * self.stride - 1)

    def _at(self, first: int, start: float, end: float, fps: float) -> list[float]:
        # The middle of each frame's time, so that rounded clocks do not tip a choice into the neighbour.
        last = max(start, end - 0.5 / fps)
        return [min(start + (first + place * self.stride + 0.5) / fps, last) for place in range(self.frames)]


@dataclass(frozen=True)
class Uniform:
    """One frame from each of `frames` equal segments of the whole video (TSN, arXiv:1608.00859 section 3.1).

    Training: anywhere in its segment. Testing: its middle; of several clips the k-th takes the (k+½)/clips-th part of each.
    """

    frames: int

    def __post_init__(self) -> None:
        _positive(frames=self.frames)

    def times(self, start: float, end: float, fps: float, generator: torch.Generator | None = None) -> list[float]:
        segment = (end - start) / self.frames
        places = torch.rand(self.frames, generator=generator, dtype=torch.float64).tolist()
        return [start + (number + place) * segment for number, place in enumerate(places)]

    def views(self, start: float, end: float, fps: float, clips: int) -> list[list[float]]:
        _positive(clips=clips)
        segment = (end - start) / self.frames
        return [
            [start + (number + (view + 0.5) / clips) * segment for number in range(self.frames)]
            for view in range(clips)
        ]


def notation(size: str) -> tuple[str, int | None, int | None]:
    """A size named with its clip as FRAMESxSTRIDE ("S_16x4") → the size, frames, stride; None where it names no clip."""
    found = re.fullmatch(r"(.+)_([1-9]\d*)x([1-9]\d*)", size)
    return (found[1], int(found[2]), int(found[3])) if found else (size, None, None)


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
