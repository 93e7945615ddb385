"""What is opened is closed: files after every reading, also one that fails or is broken off; workers after the last batch."""

import ctypes
import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from media import numbered_frames, write_video
from PIL import Image as PillowImage

from unveil.data import Dataset, Dense, Image, Manifest, Row, TrainingOrder, Video, training_batches
from unveil.errors import DecodeError, UserError
from unveil.recipe import Data, Loader

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


def open_files() -> list[str]:
    """What this process has open, by name."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the listing's own
            continue
    return sorted(name for name in names if not name.startswith("/proc/"))


def children() -> list[tuple[int, str]]:
    """Processes whose parent this one is, with their state: Z is a zombie."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.append((int(name), fields[0]))
    return found


def training(folder: Path, **more) -> Dataset:
    manifest = Manifest.of([Row(str(path)) for path in sorted(folder.iterdir())])
    return Dataset(manifest, Data(Video(Dense(2, 1)), **more), None, training=True, seed=0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(6):
        write_video(folder / f"{i}.mp4", numbered_frames(8, 32, 32, seed=i))
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:700])
    return folder


def test_three_hundred_samples_through_a_worker_leave_nothing_open(clips):
    dataset = training(clips)
    order = TrainingOrder(len(dataset), 6, seed=0)
    first = training_batches(dataset, order, Loader(workers=1), micro=6)
    next(first)  # PyTorch's and Python's own helpers of several processes stay open from here on
    first.close()
    gc.collect()
    had, processes = open_files(), children()
    batches = training_batches(dataset, order, Loader(workers=1), micro=6)
    bad = 0
    during = []
    for step in range(50):
        (batch,) = next(batches)
        bad += len(batch["bad"])
        if step in (10, 49):
            gc.collect()
            during.append(len(open_files()))
    assert len(children()) == len(processes) + 1, "the worker was not running"
    assert bad > 0
    assert during[0] == during[1], "open files grow while it runs"
    batches.close()
    del batch  # it lies in shared memory
    gc.collect()
    assert children() == processes, "a worker is left, or a zombie of it"
    assert open_files() == had


def test_workers_end_when_the_run_ends_with_an_error(tmp_path, clips):
    (tmp_path / "a.mp4").write_bytes(b"broken")
    (tmp_path / "b.mp4").write_bytes(b"")
    had, processes = open_files(), children()
    batches = training_batches(training(tmp_path), TrainingOrder(2, 2, seed=0), Loader(workers=1), micro=2)
    with pytest.raises(UserError, match="cannot be decoded"):
        next(batches)
    batches.close()
    del batches
    gc.collect()
    assert children() == processes
    assert open_files() == had


def mutants(whole: bytes, count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    made = [b"", b"text", whole[:1]]
    for i in range(count):
        data = bytearray(whole)
        if i % 2:
            data = data[: int(rng.integers(1, len(data)))]
        else:
            for place in rng.integers(0, len(data), 20):
                data[place] ^= 1 << int(rng.integers(8))
        made.append(bytes(data))
    return made


def test_readings_that_fail_close_their_files(tmp_path, clips):
    whole = (clips / "0.mp4").read_bytes()
    signal = Video(Dense(4, 1))
    gc.collect()
    had = open_files()
    failed, kept = 0, []
    for i, data in enumerate(mutants(whole, 40)):
        path = tmp_path / f"{i}.mp4"
        path.write_bytes(data)
        row = Row(str(path))
        for read in (
            lambda row=row: signal.read(row, torch.Generator()),
            lambda row=row: signal.views(row, 2),
            lambda path=path: list(signal.windows(path)),
        ):
            try:
                read()
            except DecodeError as error:
                failed += 1
                kept.append(error)  # with its traceback, and so whatever its frames hold
        assert open_files() == had, f"mutant {i} is left open"
    assert failed > 20


def test_images_that_fail_close_their_files(tmp_path):
    PillowImage.effect_noise((40, 40), 50).convert("RGB").save(tmp_path / "whole.png")
    had = open_files()
    failed = 0
    for i, data in enumerate(mutants((tmp_path / "whole.png").read_bytes(), 30)):
        path = tmp_path / f"{i}.png"
        path.write_bytes(data)
        try:
            Image().read(Row(str(path)))
        except DecodeError:
            failed += 1
        assert open_files() == had, f"mutant {i} is left open"
    assert failed > 15


def test_windows_that_are_broken_off_close_their_file(clips):
    had = open_files()
    pieces = Video(Dense(2, 1)).windows(clips / "1.mp4")
    next(pieces)
    assert len(open_files()) > len(had)
    pieces.close()
    assert open_files() == had


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]


def allocated() -> int:
    """Bytes that glibc's malloc has handed out; PyAV's and FFmpeg's objects among them, Python's small ones not."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    gc.collect()
    info = mallinfo2()
    return info.field7 + info.field4


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's own account")
@pytest.mark.parametrize("broken", [False, True])
def test_reading_gives_back_what_it_allocates(clips, broken):
    """PyAV leaks 150 bytes for every demuxing generator that is dropped before its end: 7 MB in 50,000 samples."""
    rows = [Row(str(path)) for path in sorted(clips.iterdir()) if ("broken" in path.name) == broken]
    signal = Video(Dense(2, 1))

    def read() -> None:
        for row in rows:
            try:
                signal.read(row, torch.Generator())
            except DecodeError:
                assert broken

    def repeat(count: int) -> None:
        for _ in range(count // len(rows)):
            read()

    repeat(120)
    before = allocated()
    repeat(600)
    assert (allocated() - before) / 600 < 60
