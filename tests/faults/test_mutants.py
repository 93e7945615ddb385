"""Damaged files of every container: read, or refused with a DecodeError that names them. `torture.py` does the same by the thousand."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from mutants import BYTES, IMAGES, NON_FILES, VIDEOS, Mutant, modality, population, write_sources
from trials import MEMORY, Judge, UnsteadyError

SEED = 20

# What once went wrong, and the way in which it did.
REGRESSIONS = [
    Mutant("h264.mp4", "fifo", 1),  # blocked for ever
    Mutant("rgb.png", "fifo", 1),
    Mutant("h264.flv", "duplicate", 1000),  # IndexError: a stream appears while the file is read
    Mutant("h264.flv", "zero_run", 2000),
    Mutant("h264.flv", "swap_blocks", 2002),
    Mutant("flv1.flv", "flip_bits", 2000),  # 2,000 windows and more of a file of 24 frames: a broken clock
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def judge():
    with Judge(limit=20) as judge:
        yield judge


def test_the_sources_are_whole(sources, judge):
    for name in (*VIDEOS, *IMAGES):
        verdict = judge.verdict(str(sources / name), modality(name))
        assert verdict.outcome == "ok", f"{name}: {verdict}"


def test_every_kind_of_damage_to_every_container(sources, judge, tmp_path):
    mutants = population(300, SEED)
    assert {m.source for m in mutants} == {*VIDEOS, *IMAGES}
    assert {m.kind for m in mutants} == {*BYTES, *NON_FILES}
    outcomes = [(m, judge.verdict(str(m.write(sources, tmp_path)), m.modality)) for m in mutants]
    assert [(m, verdict) for m, verdict in outcomes if verdict.outcome not in m.allowed] == []
    # The damage is real, and it is not all that is looked at.
    assert all(sum(v.outcome == outcome for _, v in outcomes) > 60 for outcome in ("ok", "bad"))
    assert all(v.outcome == "bad" for m, v in outcomes if m.kind in {"empty", "text", *NON_FILES})


@pytest.mark.parametrize("mutant", REGRESSIONS, ids=lambda m: m.name)
def test_what_once_went_wrong(mutant, sources, judge, tmp_path):
    verdict = judge.verdict(str(mutant.write(sources, tmp_path)), mutant.modality)
    assert verdict.outcome in mutant.allowed, verdict


def test_a_file_without_permission(sources):
    # pytest's own folders are closed to others, and root may read everything: so elsewhere, and as nobody.
    with tempfile.TemporaryDirectory() as folder, Judge(without_rights=True) as judge:
        Path(folder).chmod(0o755)
        for source in ("h264.mp4", "rgb.png"):
            mutant = Mutant(source, "unreadable", 0)
            verdict = judge.verdict(str(mutant.write(sources, Path(folder))), mutant.modality)
            assert verdict.outcome == "bad", verdict
            assert "ermission denied" in verdict.says


def crash(path, modality):
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path, modality):
    time.sleep(60)


def raise_something(path, modality):
    raise IndexError("list index out of range")


def leave_open(path, modality):
    os.open(path, os.O_RDONLY)
    return "ok"


def differ(path, modality):
    raise UnsteadyError("two readings differ")


def take_memory(path, modality):
    bytearray(b"x") * (MEMORY + (64 << 20))
    return "ok"


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (crash, "CRASH"),
        (hang, "HANG"),
        (raise_something, "WRONG"),
        (leave_open, "WRONG"),
        (take_memory, "WRONG"),
        (differ, "UNSTEADY"),
    ],
)
def test_what_the_judge_looks_for_it_finds(read, outcome, tmp_path):
    with Judge(limit=2 if read is hang else 30, read=read) as judge:
        assert judge.verdict(str(tmp_path), "video").outcome == outcome


def test_a_mutant_is_a_function_of_its_seed(sources, tmp_path):
    (tmp_path / "again").mkdir()
    for kind in BYTES:
        one, two, other = Mutant("h264.mkv", kind, 5), Mutant("h264.mkv", kind, 5), Mutant("h264.mkv", kind, 6)
        data = one.write(sources, tmp_path).read_bytes()
        assert data == two.write(sources, tmp_path / "again").read_bytes()
        assert kind in ("empty", "text") or data != other.write(sources, tmp_path).read_bytes()
        assert data != (sources / "h264.mkv").read_bytes()
