"""Files → windows ready for a network, as a stream: never more than a batch of them in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.data import manifest_file
from unveil.data.listing import list_files
from unveil.data.manifest import Manifest
from unveil.data.streams import as_input, shapes_of, stacked
from unveil.errors import UserError
from unveil.recipe import Data
from unveil.serve.reading import read


class Window(NamedTuple):
    """A stretch of a file; `start` and `end` in seconds, None for an image."""

    path: str
    start: float | None
    end: float | None


class BadFile(NamedTuple):
    """A file that could not be read (to its end), and the decoder's words."""

    path: str
    error: str


ON_CPU = 5_000_000
"""Values of a signal that a CPU takes through a network at once: two clips of 16 × 224². What comes out of each layer then stays in
its cache and in memory that the process holds; of eight clips the system takes it back and clears it each time."""


class Batch(NamedTuple):
    """Windows and their signal, stream by stream, not yet normalised: {"video": uint8 [B,T,C,H,W]}, {"audio": float32 [B,1,L]} …"""

    windows: list[Window]
    x: dict[str, Tensor]

    def on(self, device: torch.device, data: Data) -> dict[str, Tensor]:
        """The signal as a network takes it, on its device: {"video": float32 [B,C,T,H,W]} …"""
        return as_input(data, {key: x.to(device) for key, x in self.x.items()}, lead=1)

    def parts(self, device: torch.device) -> Iterator[Batch]:
        """What goes through a network at once there: all of it, or on a CPU some windows after the others."""
        values = max(1, sum(x[0].numel() for x in self.x.values()))
        count = max(1, ON_CPU // values) if device.type == "cpu" else len(self.windows)
        for start in range(0, len(self.windows), count):
            some = slice(start, start + count)
            yield Batch(self.windows[some], {key: x[some] for key, x in self.x.items()})


def files(paths: Iterable[Path | str], suffixes: Collection[str]) -> list[Path | BadFile]:
    """The files named, and those under the folders named, sorted within each folder; hidden ones are left out.

    Where a manifest speaks for a folder, its files; those it knows to be bad as `BadFile`.

    Args:
        paths: a file named outright is taken whatever its suffix; but a .parquet is a manifest.
        suffixes: what counts under a folder, with the dot, in lower case.

    Raises:
        UserError: a path that is not there, or a folder without such files.
    """
    found: list[Path | BadFile] = []
    for path in map(Path, paths):
        if manifest_file.of(str(path)) and path.exists():
            manifest = Manifest.scan([path], suffixes)
            bad = dict(manifest.bad_files())
            found += [BadFile(p, bad[p]) if p in bad else Path(p) for p in dict.fromkeys(manifest.column("path"))]
        elif path.is_file():
            found.append(path)
        elif path.is_dir():
            inside = [Path(file) for file in list_files(str(path), suffixes) if Path(file).suffix.lower() in suffixes]
            if not inside:
                raise UserError(f"{path}: no files with the suffixes {' '.join(sorted(suffixes))} in this folder")
            found += inside
        else:
            raise UserError(f"{path}: no such file or folder")
    if not found:
        raise UserError("no files given: name files or folders")
    return list(dict.fromkeys(found))


def stream(
    data: Data, paths: Sequence[Path | str], hop: float | None, batch: int, workers: int = 0
) -> Iterator[Batch | BadFile]:
    """Cut files into windows, prepare them as in evaluation, and stack them across files.

    In the order of the files. A file that fails in the middle yields the windows before, then `BadFile`. Windows of other shapes
    than those before (of an image after clips) begin a batch of their own.

    Args:
        data: of the recipe: its signal cuts, its evaluation transforms prepare.
        paths: files and folders.
        hop: seconds from one window to the next; None for windows that touch.
        batch: windows at once.
        workers: processes that read ahead, see `read`; they change nothing.

    Raises:
        UserError: see `files`; or `hop` or `batch` that is not positive.
    """
    if hop is not None and hop <= 0:
        raise UserError(f"--hop {hop}: windows must move on; give seconds above 0")
    if batch < 1:
        raise UserError(f"--batch {batch}: at least 1")
    found = files(paths, data.signal.suffixes)
    readable = [path for path in found if not isinstance(path, BadFile)]
    arriving = read(data, readable, hop, batch, workers)
    windows: list[Window] = []
    inputs: list[dict[str, Tensor]] = []
    try:
        for path in found:
            bad = path if isinstance(path, BadFile) else None
            while bad is None:
                item = next(arriving)
                if item.x is None:
                    bad = BadFile(str(path), item.error) if item.error else None
                    break
                if inputs and shapes_of(item.x) != shapes_of(inputs[-1]):
                    yield Batch(windows, stacked(inputs))
                    windows, inputs = [], []
                windows.append(Window(str(path), item.start, item.end))
                inputs.append(item.x)
                if len(windows) == batch:
                    yield Batch(windows, stacked(inputs))
                    windows, inputs = [], []
            if bad is not None:
                if windows:  # what came before the failure is answered before it
                    yield Batch(windows, stacked(inputs))
                    windows, inputs = [], []
                yield bad
        if windows:
            yield Batch(windows, stacked(inputs))
    finally:
        arriving.close()


def clock(start: float | None, end: float | None) -> str:
    """A stretch of time for people: "0:03.2–0:05.3"; empty for an image."""
    if start is None or end is None:
        return ""
    return f"{_minutes(start)}–{_minutes(end)}"


def _minutes(seconds: float) -> str:
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36000)
    minutes, rest = divmod(rest, 600)
    text = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
