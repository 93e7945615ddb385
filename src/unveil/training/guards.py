"""What may stop a run before its last step: a signal, too many broken files, memory that runs out."""

from __future__ import annotations

import json
import shutil
import signal as signals
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unveil.errors import NO_RIGHT, NO_ROOM, UserError
from unveil.storage import mend_lines, naming, read_lines

LOCK = ".lock"
LOCK_SECONDS = 2 if sys.platform == "linux" else 15
"""Where the kernel does not end them, the workers of a process that was killed hold what it held for some seconds."""


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
    """SIGTERM and Ctrl-C ask for a stop; the step in hand is finished and saved. Asked again, it stops at once.

    Args:
        when_asked: also called, once.
    """

    def __init__(self, when_asked: Callable[[], Any] | None = None) -> None:
        self.asked: str | None = None
        self._at = 0.0
        self._when_asked = when_asked

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
        if self.asked:
            # One Ctrl-C may arrive twice: from the terminal, and handed on by the process that started this one.
            if time.monotonic() - self._at > 1:
                raise KeyboardInterrupt
            return
        self.asked, self._at = signals.Signals(number).name, time.monotonic()
        if self._when_asked is not None:
            self._when_asked()


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run folder, made where it is missing, so that no second process writes into it.

    Raises:
        UserError: another process is training into it; or it cannot be made.
    """
    from filelock import FileLock, Timeout

    made = not run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / LOCK)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise UserError(
            f"another process is training into {run}. Wait for it or stop it; or name another --out."
        ) from error
    except OSError as error:
        raise UserError(f"--out {run} cannot be written: {error.strerror}. Name another folder.") from error
    try:
        yield
    finally:
        lock.release()
        if made and all(path.name == LOCK for path in run.iterdir()):  # refused before it began
            shutil.rmtree(run)


def clear(run: Path) -> None:
    """Empty a run folder that is held; run.json goes last, so that what a kill leaves is still a run folder."""
    for path in sorted(run.iterdir(), key=lambda path: path.name == "run.json"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Turn what a full disk and the like raise into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM and error.errno not in NO_RIGHT:
            raise
        what = f"{error.filename or run} could not be written: {error.strerror}."
        todo = "Free some space" if error.errno in NO_ROOM else "Allow writing there, or name another --out"
        raise UserError(f"{what} {todo}; the same command then goes on from the last checkpoint.") from error


class BadFiles:
    """Counts files that could not be read; stops the run when they are too many."""

    def __init__(self, run: Path, limit: float, first: bool = True):
        self.path, self.limit = run / "bad.jsonl", limit
        self.known: dict[str, str] = {}
        if first:
            mend_lines(self.path)
        for entry in read_lines(self.path):
            self.known[entry["path"]] = entry["error"]

    def add(self, bad: list[tuple[str, str]], size: int, say: Any, first: bool = True) -> None:
        """Note what could not be read in a step; only the `first` process writes it down."""
        for path, error in bad:
            if path in self.known:
                continue
            self.known[path] = error
            if first:
                with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"path": path, "error": error}) + "\n")
            say(f"skipped, cannot be read: {error if path in error else f'{path}: {error}'}")
        if len(self.known) > self.limit * size:
            listed = "\n".join(f"  {path}: {error}" for path, error in list(self.known.items())[:20])
            raise UserError(
                f"{len(self.known)} of {size} files cannot be read, more than --max-bad {self.limit:g} allows:\n{listed}\n"
                "Mend or remove them, or raise --max-bad."
            )
