"""How far work over many files is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

LINE_SECONDS = 30.0


class FileProgress:
    """Counts files done and bad, and estimates the time left from the bytes that are left. A context manager.

    Args:
        files, size: all there is to do, and how many bytes that is.
        verb: what is done to them.
        quiet: show nothing.
    """

    def __init__(self, files: int, size: int, verb: str, quiet: bool = False):
        self.files, self.size, self.verb, self.quiet = files, max(size, 1), verb, quiet
        self.done, self.bad, self.bytes = 0, 0, 0
        self._bar: Any = None
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        if self.quiet or not self.files:
            return self
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(elapsed_when_finished=True))
            # The estimate looks back a while: files are of very different lengths.
            self._bar = Progress(*columns, console=self._console, speed_estimate_period=300)
            self._task = self._bar.add_task(self._text(), total=self.size)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, size: int, bad: bool = False) -> None:
        """One more file is done."""
        self.done, self.bad, self.bytes = self.done + 1, self.bad + bad, self.bytes + size
        if self._bar is not None:
            self._bar.update(self._task, advance=size, description=self._text())
        elif not self.quiet and (time.monotonic() - self._spoke > LINE_SECONDS or self.done == self.files):
            self._spoke = time.monotonic()
            left = (self._spoke - self._began) * (self.size - self.bytes) / max(self.bytes, 1)
            more = f", about {_span(left)} left" if self.done < self.files else ""
            self._console.print(self._text() + more, highlight=False, markup=False)

    def _text(self) -> str:
        return f"{self.verb} {self.done:,} of {self.files:,} files, {self.bad:,} bad"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
