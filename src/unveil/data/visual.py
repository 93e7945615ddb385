"""Images and clips as one signal: what a file is named says how it is read, and what is read has one key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unveil.data.boxes import Crop
from unveil.data.clips import Clip
from unveil.data.listing import suffix
from unveil.data.manifest import Manifest, Row
from unveil.data.measure import Measured, measure_image, measure_video
from unveil.data.signal import Signal, Silent
from unveil.data.signals import Image, Video
from unveil.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES


@runtime_checkable
class SeveralKinds(Protocol):
    """A signal whose samples are of several kinds, that is, of shapes that cannot be stacked: a batch holds one kind."""

    kinds: ClassVar[tuple[str, ...]]
    """Their names."""

    def kind(self, path: str) -> int:
        """Which of them the samples of a file are, by its name alone."""
        ...

    def blanks(self, height: int = 256, width: int = 256) -> list[Tensor]:
        """A black sample of each kind."""
        ...


def kinds_of(signal: Signal, manifest: Manifest) -> np.ndarray | None:
    """The kind of each row's samples, int64 [rows]; None where the signal has only one."""
    if not isinstance(signal, SeveralKinds):
        return None
    return np.fromiter(map(signal.kind, manifest.column("path")), np.int64, len(manifest))


@dataclass(frozen=True)
class Visual(Silent):
    """Clips of video files, and still images as clips of `still` equal frames, uint8 [T,C,H,W] (OmniMAE, arXiv:2206.08356).

    A file that is no image by its suffix is read as a video.

    Args:
        clip: which frames of a video: `Dense(frames, stride)`, `Uniform(frames)`.
        still: frames of an image's clip.
    """

    clip: Clip
    still: int = 2
    key: ClassVar[str] = "video"
    suffixes: ClassVar[frozenset[str]] = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    pictures: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("video", "image")
    values: ClassVar[str] = Video.values

    def __post_init__(self) -> None:
        if self.still < 1:
            raise ValueError(f"the clip of an image has at least one frame, not {self.still}")

    def kind(self, path: str) -> int:
        return int(suffix(path) in IMAGE_SUFFIXES)

    @staticmethod
    def measure(path: str | os.PathLike[str]) -> Measured:
        return (measure_image if suffix(os.fspath(path)) in IMAGE_SUFFIXES else measure_video)(path)

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Tensor:
        return self._clip(self._reader(row.path).read(row, generator, crop))

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        return [self._clip(x) for x in self._reader(row.path).moments(row, count, generator)]

    def views(self, row: Row, clips: int = 1) -> list[Tensor]:
        return [self._clip(x) for x in self._reader(row.path).views(row, clips)]

    def blank(self, height: int = 256, width: int = 256) -> Tensor:
        return self.blanks(height, width)[0]

    def blanks(self, height: int = 256, width: int = 256) -> list[Tensor]:
        return [self._clip(reader.blank(height, width)) for reader in self._readers]

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Tensor]]:
        for start, end, x in self._reader(os.fspath(path)).windows(path, hop):
            yield start, end, self._clip(x)

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        return Video(self.clip).drawn(x, mean, std)

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        reader = Image if suffix(os.fspath(path)) in IMAGE_SUFFIXES else Video
        return reader.glimpse(path, start, end)

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        return None if suffix(os.fspath(path)) in IMAGE_SUFFIXES else Video.lasts(path)

    @property
    def _readers(self) -> tuple[Video, Image]:
        return Video(self.clip), Image()

    def _reader(self, path: str) -> Video | Image:
        return self._readers[self.kind(path)]

    def _clip(self, x: Tensor) -> Tensor:
        """A picture [C,H,W] → its clip, without a copy; a clip as it is."""
        return x if x.ndim == 4 else x.expand(self.still, *x.shape)
