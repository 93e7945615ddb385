"""What a kind of signal is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unveil.data.boxes import Crop
from unveil.data.measure import Measured
from unveil.data.row import Row

Raw: TypeAlias = Tensor | Mapping[str, Tensor]
"""A sample as a signal reads it; of several streams, by their keys."""


class Signal(Protocol):
    """A kind of signal. Samples of pixels are uint8, with channels before height and width, as torchvision has them; others
    are float32 [C,*S], as the network takes them. Of several streams (see `streams.SeveralStreams`) a sample is a mapping."""

    key: ClassVar[str]
    """The signal's name in samples and batches."""

    suffixes: ClassVar[frozenset[str]]
    """Of its files, with the dot, in lower case."""

    pictures: ClassVar[bool]
    """Whether samples are pictures, which the transforms of torchvision are for."""

    values: ClassVar[str]
    """What the numbers are that the network takes, in words."""

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Raw:
        """One random training sample of a row of the manifest; of its pictures the part that `crop` wants.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> Sequence[Raw]:
        """`count` random training samples of one row, each of a moment of its own where the signal has several.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    def views(self, row: Row, clips: int = 1) -> Sequence[Raw]:
        """The `clips` deterministic test samples of a row.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    def blank(self, height: int = 256, width: int = 256) -> Raw:
        """A black sample, to learn shapes from."""
        ...

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Raw]]:
        """A whole file piece by piece: (start, end, sample), seconds or None; in bounded memory.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """A sample, as the network takes it, as pictures, uint8 [T,H,W,3]: its frames, what it looks like from T
        sides, or a spectrogram."""
        ...

    def heard(self, x: Tensor) -> bytes | None:
        """A sample, as the network takes it, as a small file to listen to, M4A; None of what makes no sound."""
        ...

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        """One picture of a file, uint8 [H,W,3]; of a stretch of time its middle.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    @staticmethod
    def excerpt(path: str | os.PathLike[str], start: float | None, end: float | None) -> bytes | None:
        """A stretch of a file as a small file to listen to, M4A, of at most half a minute; None of what makes no sound.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        """Seconds that a file lasts; None of what has no time.

        Raises:
            DecodeError: the file cannot be read.
        """
        ...

    @staticmethod
    def measure(path: str | os.PathLike[str]) -> Measured:
        """Decode a whole file once, and say what it holds.

        Raises:
            DecodeError: the file cannot be read to its end.
        """
        ...


class Silent:
    """What makes no sound and has no time; a signal of its own answers inherits from it."""

    def heard(self, x: Tensor) -> bytes | None:
        """Nothing."""
        return None

    @staticmethod
    def excerpt(path: str | os.PathLike[str], start: float | None, end: float | None) -> bytes | None:
        """Nothing."""
        return None

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        """No seconds that could be told."""
        return None
