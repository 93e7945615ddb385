"""Runs killed and started again; `torture.py` does it two hundred times."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from kills import Forked, Result, Stop, Trial, command, last_step, session, trial, uninterrupted, write_clips

STEPS = 60


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("kills") / "clips")


@pytest.fixture(scope="module")
def expected(clips, tmp_path_factory):
    return uninterrupted(clips, tmp_path_factory.mktemp("whole") / "run", 0, STEPS)


@pytest.mark.parametrize(
    ("seed", "workers", "how"), [(1, 0, "kill"), (2, 2, "kill"), (3, 1, "kill-worker"), (4, 1, "kill-group")]
)
def test_a_killed_run_goes_on_bit_for_bit(clips, expected, tmp_path, seed, workers, how):
    result, life = expected
    made = trial(clips, tmp_path / "run", seed, workers, STEPS, result, life, stops=1, hows=[how])
    assert made.wrong == []


def started(clips: Path, out: Path, workers: int, **more: str) -> Forked:
    """A run that would take hours, a few steps into it."""
    process = Forked(command(clips, out, workers, 100_000, **more), out.with_suffix(".txt"))
    deadline = time.monotonic() + 60
    while (last_step(out) or 0) < 3:
        assert process.wait(0.05) is None, out.with_suffix(".txt").read_text()
        assert time.monotonic() < deadline
    return process


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_asked_to_stop_it_saves_says_so_and_ends_with_0(clips, tmp_path, name):
    out = tmp_path / "run"
    process = started(clips, out, workers=1)
    began = time.monotonic()
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, getattr(signal, name))
    assert process.wait(30) == 0
    assert time.monotonic() - began < 20
    said = out.with_suffix(".txt").read_text()
    assert f"stopped by {name}" in said
    assert "saved" in said
    assert "Traceback" not in said
    saved = max(int(path.stem.split("-")[1]) for path in (out / "checkpoints").glob("step-*.pt"))
    assert saved == last_step(out)
    assert session(process.pid) == []


def test_a_worker_that_is_killed_ends_the_run_with_an_error(clips, tmp_path):
    out = tmp_path / "run"
    process = started(clips, out, workers=2)
    os.kill(next(pid for pid in session(process.pid) if pid != process.pid), signal.SIGKILL)
    assert process.wait(30) == 2
    said = out.with_suffix(".txt").read_text()
    assert "worker" in said
    assert "Traceback" not in said
    assert session(process.pid) == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_no_worker_outlives_a_training_that_was_killed(clips, tmp_path, method):
    """However it was started: the parent of a forkserver's workers is the forkserver, which goes on as long as they do."""
    process = started(clips, tmp_path / "run", workers=2, **{"loader.start_method": method})
    assert len(session(process.pid)) > 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    deadline = time.monotonic() + 10
    while session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session(process.pid) == []


def test_two_processes_do_not_write_into_one_folder(clips, tmp_path):
    out = tmp_path / "run"
    process = started(clips, out, workers=0)
    second = Forked(command(clips, out, 0, 100_000), tmp_path / "second.txt")
    assert second.wait(60) == 2
    assert "another process" in (tmp_path / "second.txt").read_text()
    assert process.wait(0) is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def test_what_a_kill_may_change_is_compared():
    """A test of the test: a loss, a weight and a bad file that differ are noticed."""
    one = Result([{"step": 1, "loss": 0.1}], b"w", [{"path": "a"}], "complete")
    assert one.differences(one) == []
    for other in (
        Result([{"step": 1, "loss": 0.1}], b"v", one.bad, "complete"),
        Result([{"step": 1, "loss": 0.11}], b"w", one.bad, "complete"),
        Result([], b"w", one.bad, "complete"),
        Result(one.log, b"w", [], "complete"),
        Result(one.log, b"w", one.bad, "running"),
    ):
        assert one.differences(other)
    assert Trial(1, 0, False, [Stop("kill", "any", 0.1)]).as_dict()["stops"][0]["how"] == "kill"
