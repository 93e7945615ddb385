"""Times → samples of the sound of one file, of one channel, at any rate.

Times are those of `SoundFile`. Before a track begins, where it pauses, and after its end there is silence.

What is read does not depend on where reading began: decoders are given a run-up, and the resampler begins at whole periods of
the two rates, so that a stretch is the same numbers whether it is sought out or reached from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from torch import Tensor

from unveil.data.sound_file import SoundFile

_MARGIN = 32  # taps on each side of libswresample's filter, at the lower of the two rates; it has 16
_BLOCK = 1 << 15  # samples of silence that are made at once


class SoundReader(SoundFile):
    """The sound of an open file; a context manager. Arguments, attributes and errors are those of `SoundFile`."""

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what is asked for

    def read(self, start: float, end: float, rate: int) -> Tensor:
        """The sound from `start` to `end`, float32 [1, L] in [-1, 1], L = round((end - start) × rate).

        The samples lie at whole multiples of 1 / rate seconds, the first at the one nearest to `start`.

        Args:
            start, end: seconds; also before 0 or after the end, where there is silence.
            rate: samples per second.
        """
        first, count = round(start * rate), max(0, round((end - start) * rate))
        sound = np.zeros((1, count), np.float32)
        filled = 0
        for block in self.blocks(rate, first, first + count):
            sound[0, filled : filled + len(block)] = block
            filled += len(block)
        return torch.from_numpy(sound)

    def blocks(self, rate: int, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """Samples `first` to before `last` at `rate`, float32 [n] in [-1, 1], piece by piece: few are held at once.

        Args:
            rate: samples per second.
            first, last: counted from time 0; None: to the end of the sound.
        """
        if rate < 1:
            raise ValueError(f"a rate is at least 1, got {rate}")
        if last is not None and last <= first:
            return
        pieces = self._samples(first, last) if rate == self.rate else self._resampled(rate, first, last)
        for piece in pieces:
            yield np.clip(piece, -1, 1)  # lossy codecs and filters overshoot

    def unclipped(self) -> Iterator[np.ndarray]:
        """All samples as they are in the file, from its time 0: also those beyond [-1, 1]."""
        return self._samples(0, None)

    # ---- rates

    def _resampled(self, rate: int, first: int, last: int | None) -> Iterator[np.ndarray]:
        common = math.gcd(rate, self.rate)
        out, into = rate // common, self.rate // common  # samples of one period
        margin = math.ceil(_MARGIN * max(1.0, self.rate / rate))
        period = (first * into // out - margin) // into
        until = None if last is None else -(-last * into // out) + margin
        resampler = AudioResampler("flt", "mono", rate)

        def resampled(sound: np.ndarray | None) -> list[np.ndarray]:
            frame = None
            if sound is not None:
                frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), "flt", "mono")
                frame.sample_rate = self.rate
            return [made.to_ndarray()[0] for made in resampler.resample(frame)]

        place, come = period * out, period * into  # of what comes out, of what went in
        for sound in chain(self._samples(come, until), (None,)):
            if sound is None:  # to the filter silence follows; of an open end no more is kept than the sound lasts
                last = -(-come * rate // self.rate) if last is None else last
                pieces = [*resampled(np.zeros(margin, np.float32)), *resampled(None)]
            else:
                come += len(sound)
                pieces = resampled(sound)
            for piece in pieces:
                kept = piece[max(0, first - place) : None if last is None else max(0, last - place)]
                place += len(piece)
                if len(kept):
                    yield kept
            if last is not None and place >= last:
                return

    # ---- samples of the file

    def _samples(self, begin: int, until: int | None) -> Iterator[np.ndarray]:
        """Samples `begin` to before `until` at the file's rate, silence where it has none; None: to its end, and not beyond."""
        place = begin
        for start, sound in self.decoded(begin):
            if until is not None and start >= until:
                break
            if start + len(sound) <= place:
                continue
            if start > place:
                yield from _silence(start - place)
                place = start
            piece = sound[place - start : None if until is None else until - start]
            place += len(piece)
            yield piece
            if place == until:
                return
        if until is not None:
            yield from _silence(until - place)


def _silence(count: int) -> Iterator[np.ndarray]:
    for begun in range(0, count, _BLOCK):
        yield np.zeros(min(_BLOCK, count - begun), np.float32)
