"""One function over many items in processes of their own, any of which may hang, crash or be killed.

The pools of the standard library break as a whole when a worker dies, and cannot end a call that hangs. Here every worker
has a pipe of its own and shares nothing with the others: one that dies or runs late is replaced, its item has failed, and
the rest goes on.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, NamedTuple

from unveil.errors import UserError

START_LIMIT = 300.0
"""Seconds a worker may take to start: it imports PyTorch, perhaps from a cold disk of a busy machine."""

START_ATTEMPTS = 3


class Failed(NamedTuple):
    """Why there is no result for an item."""

    error: str


def each(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, limit: Callable[[Any], float]
) -> Generator[tuple[Any, Any], None, None]:
    """`function(item)` for every item, as (item, result) in the order in which they end.

    The result is a `Failed` where the call raised, took longer than `limit(item)` seconds, or took its process along with
    it. Closing the generator kills the workers, whatever they are doing; should this process be killed, they end with it.

    Args:
        function: importable by name in another process, as are its arguments and results by pickle.
        items: taken as workers become free.
        workers: processes, at least 1.
        limit: seconds for an item.

    Raises:
        UserError: no worker can be started.
    """
    # Not "fork": this process has threads (a progress bar, PyTorch's), whose locks a fork would copy as they stand.
    context: Any = mp.get_context("forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["unveil.data", function.__module__])  # imports once, not once a worker
    waiting = deque(items)
    crew: list[_Worker] = []
    failed_starts = 0
    try:
        while True:
            for worker in [worker for worker in crew if worker.idle]:
                if waiting:
                    item = waiting.popleft()
                    worker.hand(item, limit(item))
                else:
                    crew.remove(worker)
                    worker.end(patience=1)
            starting = sum(not worker.ready for worker in crew)
            while len(crew) < workers and starting < len(waiting):
                crew.append(_Worker(context, function))
                starting += 1
            for worker in [worker for worker in crew if not worker.ready] if not waiting else ():
                crew.remove(worker)
                worker.end()
            if not crew:
                return
            nearest = min(worker.deadline for worker in crew)
            heard = connection.wait([worker.pipe for worker in crew], max(0.0, nearest - time.monotonic()))
            for worker in list(crew):
                if worker.pipe in heard:
                    answer = worker.answer()
                elif time.monotonic() >= worker.deadline:
                    answer = Failed(f"no end after {worker.limit:g} s (--timeout)")
                    worker.end()
                else:
                    continue
                if answer is _READY:
                    failed_starts = 0
                    continue
                if worker.ended:
                    crew.remove(worker)
                if worker.ready:
                    yield worker.item, answer
                    continue
                failed_starts += 1
                if failed_starts >= START_ATTEMPTS * workers:
                    raise UserError(
                        f"no process can be started to decode in: {answer.error}. In a script of your own, keep what is "
                        'run below `if __name__ == "__main__":`, since new processes import the script.'
                    )
    finally:
        for worker in crew:
            worker.end()


_READY: Any = object()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def stoppable(quiet: bool = False) -> Iterator[None]:
    """Let SIGTERM end the work inside in an orderly way, as Ctrl-C does, and say that what is done is kept."""

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not quiet:
            print("stopped; what is done is kept, and the same command goes on from here", file=sys.stderr)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


class _Worker:
    """A process, and what it is doing."""

    def __init__(self, context: Any, function: Callable[[Any], Any]):
        self.pipe, theirs = context.Pipe()
        # A daemon: it is killed when this process exits in an orderly way without having closed the generator.
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()  # or the end of the process would not be the end of the pipe
        self.ready, self.idle, self.ended = False, False, False
        self.item: Any = None
        self.limit = START_LIMIT
        self.deadline = time.monotonic() + self.limit

    def hand(self, item: Any, limit: float) -> None:
        self.item, self.limit, self.idle = item, limit, False
        self.deadline = time.monotonic() + limit
        with contextlib.suppress(OSError):  # it died while idle: `answer` finds the pipe closed
            self.pipe.send(item)

    def answer(self) -> Any:
        """What came through the pipe: `_READY`, a result, or that the process is no more."""
        try:
            good, value = self.pipe.recv()
        except (EOFError, OSError):
            self.end(patience=5)
            return Failed(_last_words(self.process.exitcode))
        self.idle = True
        if not self.ready:
            self.ready = True
            return _READY
        return value if good else Failed(value)

    def end(self, patience: float = 0.0) -> None:
        """Kill the process unless it ends by itself, as it does when its pipe is closed while it waits."""
        self.ended = True
        self.pipe.close()
        if patience:
            self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)


def _last_words(status: int | None) -> str:
    if status is None or status >= 0:
        return f"the decoding process ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if name == "SIGKILL":
        return "the decoding process was killed (SIGKILL): is the memory enough?"
    return f"the decoding process crashed ({name})"


def _serve(pipe: connection.Connection, function: Callable[[Any], Any]) -> None:
    """What a worker does until its pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    parent = mp.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, this process is the one to be killed
    with contextlib.suppress(EOFError, OSError):
        pipe.send((True, None))
        while True:
            item = pipe.recv()
            try:
                answer = True, function(item)
            except UserError as error:
                answer = False, str(error)
            except Exception as error:  # whatever a decoder makes of a broken file
                answer = False, f"{type(error).__name__}: {error}"
            pipe.send(answer)


def _end_with(parent: Any) -> None:
    """End this process with its parent, also in the middle of a call that never returns."""
    parent.join()
    os._exit(1)
