"""Files → windows, one after the other in the order of the files; where there are many, read by processes ahead of the network."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.data.streams import shapes_of, stacked, transformed
from unveil.data.workers import ANSWERING, Failure, load, num_workers
from unveil.errors import UserError
from unveil.recipe import Data, Loader

FILES = 4
"""Files that are worth a process of their own at least."""


class Read(NamedTuple):
    """A window, or the end of a file.

    Attributes:
        file: its number.
        start, end: seconds; None of an image.
        x: stream by stream as the transforms of evaluation leave it, not yet normalised; None at the file's end.
        error: at the end, why the file could not be read (further); "" where it could.
    """

    file: int
    start: float | None = None
    end: float | None = None
    x: dict[str, Tensor] | None = None
    error: str = ""


Numbered = tuple[int, Path]
Part = tuple[list[Read], dict[str, Tensor]]
"""Windows without their streams, ends of files between them; and the streams of all of them, stacked."""


def read(data: Data, files: Sequence[Path], hop: float | None, batch: int, workers: int) -> Generator[Read, None, None]:
    """Every window of every file, and after its windows each file's end.

    With workers each of them reads every n-th file, up to a few batches ahead; memory does not grow with the length of a file.

    Args:
        data: of the recipe.
        files: in their order.
        hop: seconds from one window to the next; None for windows that touch.
        batch: windows at a time that a worker hands over.
        workers: processes; -1 for one per core, less one. Few files are read in this process.

    Raises:
        UserError: a worker died, or has no room to hand over what it read.
    """
    numbered = list(enumerate(files))
    count = min(num_workers(Loader(workers=workers)), len(files) // FILES)
    if count < 1:
        yield from _windows(data, numbered, hop)
        return
    # A loader for each process: of one loader with several, a long film would leave the others' windows piling up here.
    ahead: list[Generator[Part, None, None]] = []
    try:
        for first in range(count):
            ahead.append(load(_Ahead(data, numbered[first::count], hop, batch), None, Loader(workers=1), ANSWERING))
        sources = [_taken_apart(parts) for parts in ahead]
        for number in range(len(files)):
            for item in sources[number % count]:
                yield item
                if item.x is None:
                    break
    finally:
        for parts in ahead:
            parts.close()


def _windows(data: Data, files: Iterable[Numbered], hop: float | None) -> Iterator[Read]:
    for number, path in files:
        error = ""
        try:
            for start, end, x in data.signal.windows(path, hop):
                yield Read(number, start, end, transformed(data, x))
        except (UserError, OSError) as problem:
            error = str(problem)
        yield Read(number, error=error)


class _Ahead(torch.utils.data.IterableDataset):
    """What a worker does: windows of its files, some at a time."""

    def __init__(self, data: Data, files: Sequence[Numbered], hop: float | None, batch: int):
        self.data, self.files, self.hop, self.batch = data, files, hop, batch

    def __iter__(self) -> Iterator[Part | Failure]:
        try:
            yield from self._parts()
        except UserError as error:
            yield Failure(error)

    def _parts(self) -> Iterator[Part]:
        heads: list[Read] = []
        inputs: list[dict[str, Tensor]] = []
        for item in _windows(self.data, self.files, self.hop):
            if item.x is not None:
                if len(inputs) == self.batch or (inputs and shapes_of(item.x) != shapes_of(inputs[-1])):
                    yield heads, stacked(inputs)
                    heads, inputs = [], []
                inputs.append(item.x)
            # A place of its own in the stack stands for the streams.
            heads.append(item if item.x is None else item._replace(x={}))
        yield heads, stacked(inputs) if inputs else {}


def _taken_apart(parts: Iterable[Part]) -> Iterator[Read]:
    for heads, streams in parts:
        place = 0
        for head in heads:
            if head.x is None:
                yield head
            else:
                yield head._replace(x={key: x[place] for key, x in streams.items()})
                place += 1
