"""What may stop a run before its last step: a signal, too many broken files, memory that runs out."""

from __future__ import annotations

import json
import signal as signals
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unveil.errors import UserError
from unveil.run import read_lines


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turn the errors of a device or machine that is out of memory into one that names the flags to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        short = str(error).splitlines()[0] if str(error) else ""
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in short:
            raise
        raise UserError(
            f"out of memory: {short}\nLower --loader.batch (the rest of the batch is accumulated, the result stays the "
            "same), or add --checkpointing true, or use a smaller --size."
        ) from error


class Stop:
    """SIGTERM and Ctrl-C ask for a stop; the step in hand is finished and saved."""

    def __init__(self) -> None:
        self.asked: str | None = None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {}
        for number in (signals.SIGTERM, signals.SIGINT):
            before[number] = signals.signal(number, self._ask)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signals.signal(number, handler)

    def _ask(self, number: int, _frame: Any) -> None:
        if self.asked:  # asked twice: now
            raise KeyboardInterrupt
        self.asked = signals.Signals(number).name


class BadFiles:
    """Counts files that could not be read; stops the run when they are too many."""

    def __init__(self, run: Path, limit: float):
        self.path, self.limit = run / "bad.jsonl", limit
        self.known: dict[str, str] = {}
        for entry in read_lines(self.path):
            self.known[entry["path"]] = entry["error"]

    def add(self, bad: list[tuple[str, str]], size: int, say: Any) -> None:
        for path, error in bad:
            if path not in self.known:
                self.known[path] = error
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"path": path, "error": error}) + "\n")
                say(f"skipped, cannot be read: {error if path in error else f'{path}: {error}'}")
        if len(self.known) > self.limit * size:
            listed = "\n".join(f"  {path}: {error}" for path, error in list(self.known.items())[:20])
            raise UserError(
                f"{len(self.known)} of {size} files cannot be read, more than --max-bad {self.limit:g} allows:\n{listed}\n"
                "Mend or remove them, or raise --max-bad."
            )
