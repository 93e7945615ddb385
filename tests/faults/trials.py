"""Reading files that may do anything: in a process of its own, under limits of time and memory, and with a verdict.

ok     read to its end, every result of the right shape
bad    a DecodeError that names the file and says why
WRONG  any other error; one without the name; a result of a wrong shape; too much memory; a file left open
UNSTEADY  two readings differ: its decoder shows memory that it has not written
CRASH  the process died of a signal
HANG   it took longer than the limit
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

FRAMES, STRIDE = 8, 2
MEMORY = 1 << 30  # bytes in memory that a file may add to what the process holds
ADDRESSES = 8 << 30  # the same of addresses, so that a mistake does not take the machine down
WINDOWS = 20_000  # a clock may stand still for an hour (`MAX_GAP`), and more than once
NOBODY = 65534
_M_PERTURB = -6  # of malloc.h


class UnsteadyError(Exception):
    """Two readings of a file differ."""


class Verdict(NamedTuple):
    outcome: str
    says: str
    seconds: float
    memory: int  # bytes, at most, above what the process held before


def read_everything(path: str, modality: str) -> str:
    """Through every way in which the library reads a file.

    Returns:
        "ok", or the decoder's words.

    Raises:
        AssertionError: a result is not what was promised.
        Exception: anything but a DecodeError is a defect.
    """
    from unveil.errors import DecodeError

    said = []
    for look in _LOOKS[modality]:
        try:
            look(path)
        except DecodeError as error:
            text = str(error)
            assert path in text, f"{look.__name__}: the error does not name the file: {text!r}"
            words = text.replace(path, "").strip(" :.")
            assert words, f"{look.__name__}: the error says nothing but the name: {text!r}"
            assert "\n" not in words, f"{look.__name__}: an error of several lines: {text!r}"
            said.append(f"{look.__name__}: {words}")
    return " | ".join(said) or "ok"


def _training(path: str) -> None:
    import torch

    from unveil.data import Dense, Row, Video

    clips = []
    for fill in (0x55, 0xAA):
        with filled_memory(fill):
            clips.append(Video(Dense(FRAMES, STRIDE)).read(Row(path), torch.Generator().manual_seed(3)))
    _check_clip(clips[0])
    if not torch.equal(*clips):
        raise UnsteadyError("two readings differ")


@contextmanager
def filled_memory(byte: int) -> Iterator[None]:
    """New memory holds this byte instead of chance, so that a decoder that shows memory it has not written is found out."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # the GNU C library's
    if mallopt is None:
        yield
        return
    mallopt(_M_PERTURB, byte)
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


def _testing(path: str) -> None:
    from unveil.data import Dense, Row, Video

    views = Video(Dense(FRAMES, STRIDE)).views(Row(path), 3)
    assert len(views) == 3
    for clip in views:
        _check_clip(clip)


def _windows(path: str) -> None:
    from unveil.data import Dense, Video

    before = -math.inf
    for number, (start, end, clip) in enumerate(Video(Dense(FRAMES, STRIDE)).windows(path)):
        _check_clip(clip)
        assert start is not None
        assert end is not None
        assert math.isfinite(start)
        assert math.isfinite(end)
        assert before < start <= end, f"windows out of order: {before}, then {start} to {end}"
        assert number < WINDOWS, f"window {number} at {start} s"
        before = start


def _probe(path: str) -> None:
    from unveil.data import probe

    info = probe(path)
    assert info.width > 0
    assert info.height > 0
    assert info.num_frames >= 1
    assert math.isfinite(info.fps)
    assert info.fps > 0
    assert math.isfinite(info.duration)
    assert info.duration >= 0


def _measure(path: str) -> None:
    from unveil.data import Video

    found = Video.measure(path)
    assert found.width > 0
    assert found.height > 0
    assert found.frames
    assert found.duration is not None
    assert math.isfinite(found.duration)


def _image(path: str) -> None:
    import torch

    from unveil.data import Image, Row

    with filled_memory(0x55):
        image = Image().read(Row(path))
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert image.numel() > 0
    with filled_memory(0xAA):
        if not torch.equal(image, Image().views(Row(path))[0]):
            raise UnsteadyError("two readings differ")
    assert len(list(Image().windows(path))) == 1
    found = Image.measure(path)
    assert (found.height, found.width) == tuple(image.shape[1:])


def _sound(path: str) -> None:
    import torch

    from unveil.data import Row, Sound

    for rate in (16000, 44100):
        x = Sound(0.5, rate).read(Row(path), torch.Generator().manual_seed(3))
        views = Sound(0.5, rate).views(Row(path), 3)
        for found in (x, *views):
            _check_sound(found, rate // 2)


def _sound_windows(path: str) -> None:
    from unveil.data import Sound

    before = -math.inf
    for number, (start, end, x) in enumerate(Sound(0.5).windows(path)):
        _check_sound(x, 8000)
        assert start is not None
        assert end is not None
        assert before < start <= end, f"windows out of order: {before}, then {start} to {end}"
        assert number < WINDOWS, f"window {number} at {start} s"
        before = start


def _sound_measured(path: str) -> None:
    from unveil.data import Sound

    found = Sound.measure(path)
    assert found.duration is not None
    assert found.peak is not None
    assert math.isfinite(found.duration)
    assert math.isfinite(found.peak)
    assert found.rate
    assert found.channels


def _check_sound(x: Any, length: int) -> None:
    import torch

    assert x.dtype == torch.float32
    assert x.shape == (1, length), f"a sound of shape {tuple(x.shape)}"
    assert float(x.abs().max()) <= 1


def _check_clip(clip: Any) -> None:
    import torch

    assert clip.dtype == torch.uint8
    assert clip.shape[:2] == (FRAMES, 3), f"a clip of shape {tuple(clip.shape)}"
    assert clip.numel() > 0


_LOOKS: dict[str, tuple[Callable[[str], None], ...]] = {
    "video": (_training, _testing, _windows, _probe, _measure),
    "image": (_image,),
    "sound": (_sound, _sound_windows, _sound_measured),
}


HEAVY = [
    "unveil.cli", "unveil.verbs", "unveil.data", "unveil.training.loop", "unveil.training.monitor", "unveil.evaluation",
    "unveil.recipes.videomae", "lightning_fabric", "jsonargparse", "torch.distributed.checkpoint", "torch.optim.swa_utils",
]  # fmt: skip


def imported_once() -> Any:
    """The context of processes that are forked from one that has done the imports, most of a short command's time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


class Judge:
    """Judges one file after the other in a child process, which is replaced when it dies or is out of time.

    Args:
        limit: seconds for a file.
        without_rights: the child gives up being root, to whom nothing is unreadable.
        read: what is done to the file; returns "ok" or the words of its refusal, and raises for a defect.
    """

    def __init__(
        self, limit: float = 20.0, without_rights: bool = False, read: Callable[[str, str], str] = read_everything
    ):
        self.limit = limit
        self.without_rights = without_rights
        self.read = read
        self._context = imported_once()
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            assert self._pipe is not None
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def verdict(self, path: str, modality: str) -> Verdict:
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_judge, args=(theirs, self.without_rights, self.read))
            self._process.start()
            theirs.close()
            self._pipe.recv()  # it is there: the clock does not count its start
        assert self._pipe is not None
        began = time.monotonic()
        self._pipe.send((path, modality))
        if not self._pipe.poll(self.limit):
            self._end()
            return Verdict("HANG", f"longer than {self.limit:g} s", time.monotonic() - began, 0)
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._end()
            name = signal.Signals(-code).name if code and code < 0 else f"exit status {code}"
            return Verdict("CRASH", name, time.monotonic() - began, 0)


def _judge(pipe: Connection, without_rights: bool, read: Callable[[str, str], str]) -> None:
    """The child's loop."""
    import av
    import torch

    import unveil.data  # noqa: F401

    torch.set_num_threads(1)
    av.logging.set_level(None)
    sys.setrecursionlimit(500)  # what recurses with a file's structure is found sooner
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if without_rights:
        give_up_rights()
    held = _bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES, held + ADDRESSES))
    pipe.send("ready")
    while True:
        try:
            path, modality = pipe.recv()
        except EOFError:
            return
        pipe.send(_judged(read, path, modality))


def _judged(read: Callable[[str, str], str], path: str, modality: str) -> Verdict:
    _reset_peak()
    rss, files = _bytes("VmRSS"), len(os.listdir("/proc/self/fd"))
    began = time.monotonic()
    try:
        says = read(path, modality)
        outcome = "ok" if says == "ok" else "bad"
    except UnsteadyError as error:
        outcome, says = "UNSTEADY", str(error)
    except BaseException as error:
        outcome, says = (
            "WRONG",
            f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}",
        )
        del error
    seconds = time.monotonic() - began
    memory = max(0, _bytes("VmHWM") - rss)
    if memory > MEMORY:
        outcome, says = "WRONG", f"took {memory >> 20} MiB ({says})"
    if outcome != "WRONG" and len(os.listdir("/proc/self/fd")) > files:
        gc.collect()  # what an exception's traceback held
        if len(os.listdir("/proc/self/fd")) > files:
            outcome, says = "WRONG", f"a file was left open ({says})"
    return Verdict(outcome, says, seconds, memory)


def give_up_rights() -> None:
    """Root, to whom nothing is forbidden, becomes nobody."""
    # Python itself may lie where nobody may look; and the forkserver has done the imports of whoever asked for it first.
    for module in HEAVY:
        importlib.import_module(module)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _bytes(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))


def _reset_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # the highest ever then
        pass
