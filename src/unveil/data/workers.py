"""The lives of loader workers: begun, fed, heard when they die, and ended with whatever ends the training."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from unveil.data import shared_memory
from unveil.errors import UserError
from unveil.recipe import Loader

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Failure:
    """An error meant for the user, on its way out of a worker (raised there, it would gather a traceback as its text)."""

    def __init__(self, error: UserError):
        self.error = error


def _handed_over(batch: Any) -> Any:
    try:
        shared_memory.share(batch)
    except UserError as error:
        return Failure(error)
    return batch


def num_workers(loader: Loader) -> int:
    """The number of worker processes: `loader.workers`, or one per core that is this process's share, less one."""
    if loader.workers >= 0:
        return loader.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1)  # torchrun's word for processes here


LEARNING = (
    "If memory ran out, lower --loader.workers or --loader.prefetch; if a file crashes the decoder, `unveil data check` finds it. "
    "The same command goes on from the last checkpoint."
)
ANSWERING = (
    "If memory ran out, lower --workers; if a file crashes the decoder, `unveil data check` finds it, and what it wrote leaves the "
    "file out."
)
"""What to do when a worker has died."""


@contextmanager
def reporting_workers(advice: str = LEARNING) -> Iterator[None]:
    """Turn what PyTorch raises when a loader worker has died, wherever that interrupts, into an error meant for a person."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _worker_died(error, advice) from error


def _worker_died(error: Exception, advice: str) -> UserError:
    return UserError(f"a loader worker has died: {str(error).splitlines()[0].rstrip('. ')}. {advice}")


def _begin_worker(_number: int) -> None:
    # Ctrl-C reaches every process of a terminal, and service managers send SIGTERM to all processes of a service; both are the
    # training's to answer, which needs its workers until it has saved, and ends them then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        # A worker whose training was killed would go on for seconds, holding the run folder; the kernel ends it at once.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    if multiprocessing.get_start_method() != "fork":
        # A forkserver is their parent for the kernel, and lives as long as they do.
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    elif os.getppid() != parent.pid:  # killed before the kernel was told
        os._exit(1)
    # The last of what multiprocessing does at the end. Behind it, an interpreter that was spawned takes itself apart while the
    # thread that sends batches may be inside PyTorch: C++ answers with an abort, which the training takes for a crash.
    Finalize(None, _leave, exitpriority=-1000)


def _leave() -> None:
    if sys.exc_info()[0] is None:  # an error that is on its way shall be printed
        os._exit(0)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def load(batches: Dataset, chunks: Any, loader: Loader, advice: str = LEARNING) -> Generator[Any, None, None]:
    """`batches[chunk]` for each chunk, in order, computed ahead by workers, which begin at once and live as long as this is read.

    Args:
        batches: chunk → batch, or a `Failure`, whose error is raised; or, without chunks, an `IterableDataset` of them.
        chunks: iterable, may be endless; None for what is iterated by itself.
        loader: how many workers, and how far ahead.
        advice: for the case that a worker dies.

    Raises:
        UserError: a worker died, or failed.
    """
    workers = num_workers(loader)
    # A generator of its own: PyTorch would draw a seed for the workers from the global one, which is the training's.
    options: dict[str, Any] = {"generator": torch.Generator()}
    if workers:
        # PyTorch gives each worker one thread; the decoder is given one by VideoReader.
        options |= {
            "prefetch_factor": loader.prefetch,
            "multiprocessing_context": loader.start_method or None,
            "worker_init_fn": _begin_worker,
        }
    loading = DataLoader(
        batches, batch_size=None, sampler=chunks, collate_fn=_handed_over, num_workers=workers, **options
    )
    with warnings.catch_warnings():
        # Python 3.12 warns that forking a process with threads may deadlock; the workers use none of PyTorch's threads.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
        before = set(multiprocessing.active_children())
        arriving: Any = iter(loading)
        crew = set(multiprocessing.active_children()) - before
    following = _arriving(arriving, crew, advice)
    next(following)  # from here on closing it ends the workers, whether or not it is read
    return following


def _arriving(batches: Any, crew: set[Any], advice: str) -> Generator[Any, None, None]:
    try:
        yield None
        for batch in batches:
            if isinstance(batch, Failure):
                raise batch.error
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _worker_died(error, advice) from error
    except (OSError, EOFError) as error:  # a batch is fetched from the worker itself, which may be gone by then
        gone = next((worker for worker in crew if worker.join(1) or worker.exitcode), None)
        if gone is None:
            raise
        raise _worker_died(OSError(f"DataLoader worker (pid {gone.pid}) ended with {gone.exitcode}"), advice) from error
    finally:
        # Left to the garbage collector (a traceback may hold `batches`), the workers would live until the process ends.
        if crew:
            with suppress(RuntimeError):  # a worker has died: of this loader or of another one
                batches._shutdown_workers()
        for worker in crew:
            worker.kill()  # a decoder that hangs does not hear that it is to stop
