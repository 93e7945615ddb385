"""Real `unveil` processes, stopped by force at random moments and started again with the same command."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import set_start_method
from pathlib import Path
from typing import Any, Protocol

from media import numbered_frames, write_video
from trials import give_up_rights, imported_once

TIMING = {"samples_per_s", "data_wait"}
COUNTS = {"bad"}  # of files known so far: a resumed run knows those that the stopped one met
ORPHAN_SECONDS = 10
HOW = ("kill", "kill", "kill", "kill-group", "kill-worker", "terminate", "interrupt")
"""What is done to a process; most often SIGKILL to it alone."""


# ---- processes


class Process(Protocol):
    pid: int

    def wait(self, timeout: float | None) -> int | None:
        """Its exit status, negative for a signal; None if it still runs."""
        ...


class Fresh:
    """A command as a user starts it."""

    def __init__(self, argv: Sequence[str], output: Path):
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unveil.cli", *argv], stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def wait(self, timeout: float | None) -> int | None:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


class Forked:
    """The same from a process that has done the imports, which are most of a short command's time.

    Args:
        argv: after `unveil`.
        output: file for what it prints, added at the end.
        largest: bytes of a file that it may write; beyond, writing fails as on a full disk.
        without_rights: it gives up being root, who may write everywhere.
    """

    def __init__(self, argv: Sequence[str], output: Path, largest: int | None = None, without_rights: bool = False):
        self._process = imported_once().Process(
            target=_command, args=(list(argv), str(output), largest, without_rights)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout: float | None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


def _command(argv: list[str], output: str, largest: int | None, without_rights: bool) -> None:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if without_rights:
        give_up_rights()
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    # What a process that a forkserver started would use for its own; a user's command has the platform's.
    set_start_method("fork" if sys.version_info < (3, 14) else "forkserver", force=True)
    from unveil import cli

    sys.argv = ["unveil", *argv]
    cli.main()


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, _, _, of = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):  # gone meanwhile
                continue
            if int(of) == leader and state not in "ZX":
                found.append(int(entry))
    return found


# ---- the run that is stopped


def write_clips(folder: Path, count: int = 12) -> Path:
    """H.264 files with B-frames, and among them two that are broken."""
    folder.mkdir(parents=True)
    for number in range(count):
        write_video(folder / f"{number:02d}.mp4", numbered_frames(20, seed=number), bframes=number % 3)
    whole = (folder / "00.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("not a film")
    return folder


def command(
    clips: Path, out: Path, workers: int, steps: int, every: float = 0.15, **more: str | int | float
) -> list[str]:
    flags = {
        "data": clips, "out": out, "size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 2, "device": "cpu",
        "max-steps": steps, "max-bad": 0.5, "schedule.batch": 4, "loader.batch": 2, "loader.workers": workers,
        "checkpoint-every": every, "seed": 5,
    }  # fmt: skip
    return ["pretrain", "videomae", *(f"--{name}={value}" for name, value in (flags | more).items())]


@dataclass(frozen=True)
class Result:
    """What a finished run holds that no interruption may change."""

    log: list[dict[str, Any]]
    weights: bytes
    bad: list[dict[str, Any]]
    status: str

    @classmethod
    def of(cls, run: Path) -> Result:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        bad = [json.loads(line) for line in (run / "bad.jsonl").read_text().splitlines()]
        return cls(
            [{k: v for k, v in line.items() if k not in TIMING | COUNTS} for line in lines],
            (run / "weights.safetensors").read_bytes(),
            sorted(bad, key=lambda entry: entry["path"]),
            json.loads((run / "run.json").read_text())["status"],
        )

    def differences(self, other: Result) -> list[str]:
        found = []
        for mine, its in zip(self.log, other.log, strict=False):
            if mine != its:
                found.append(f"from step {mine.get('step')} on the log differs: {mine} {its}")
                break
        if len(self.log) != len(other.log):
            found.append(f"{len(other.log)} lines of log instead of {len(self.log)}")
        if self.weights != other.weights:
            found.append("the weights differ")
        if self.bad != other.bad:
            found.append(f"bad.jsonl differs: {self.bad} {other.bad}")
        if self.status != other.status:
            found.append(f"status {other.status}")
        return found


@dataclass
class Stop:
    """One interruption: what was done when, and how the process ended."""

    how: str
    aim: str
    after: float
    status: int | None = None
    step: int | None = None


@dataclass
class Trial:
    """A run that was stopped, perhaps several times, and then finished."""

    seed: int
    workers: int
    fresh: bool
    stops: list[Stop] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def uninterrupted(clips: Path, out: Path, workers: int, steps: int) -> tuple[Result, float]:
    """The run as it should be, and how long it takes."""
    began = time.monotonic()
    process = Forked(command(clips, out, workers, steps), out.with_suffix(".txt"))
    status = process.wait(300)
    assert status == 0, f"exit status {status}: {out.with_suffix('.txt').read_text()[-2000:]}"
    return Result.of(out), time.monotonic() - began


def trial(
    clips: Path, out: Path, seed: int, workers: int, steps: int, expected: Result, life: float,
    stops: int | None = None, fresh: bool = False, hows: Sequence[str] = HOW,
) -> Trial:  # fmt: skip
    """Stop a run `stops` times (1 to 3 by chance), finish it, and compare.

    Args:
        life: seconds that the whole run takes; moments are uniform over it, or aimed at a checkpoint being written.
    """
    rng = random.Random(seed)
    made = Trial(seed, workers, fresh)
    began = time.monotonic()
    argv, output = command(clips, out, workers, steps), out.with_suffix(".txt")
    start: Callable[..., Process] = Fresh if fresh else Forked
    wanted = stops or rng.choice((1, 1, 2, 3))
    watched: list[tuple[float, int]] = []  # (when it was stopped, session)
    left = life
    # A shot after the end, or at a worker where there is none, hits nothing and is not counted.
    for _ in range(wanted * 4):
        if len(made.stops) == wanted:
            break
        how = rng.choice([h for h in hows if workers or h != "kill-worker"])
        aim = "checkpoint" if rng.random() < 0.25 else "any"
        stop = Stop(how, aim, rng.uniform(0, left * 1.02))
        process = start(argv, output)
        hit = _stop(process, stop, out, rng)
        watched.append((time.monotonic(), process.pid))
        if hit:
            stop.step = last_step(out)
            made.stops.append(stop)
            made.wrong += _manners(stop, output)
            left = max(life * 0.2, life * (1 - (stop.step or 0) / steps))
        elif stop.status != 0:
            made.wrong.append(f"ended with status {stop.status} by itself")
            break
        else:
            break
    process = Forked(argv, output)
    status = process.wait(120 + 10 * life)
    if status is None:
        made.wrong.append("HANG: the run that goes on does not end")
        os.killpg(process.pid, signal.SIGKILL)
    elif status != 0:
        made.wrong.append(f"the run that goes on ended with status {status}")
    watched.append((time.monotonic(), process.pid))
    if not made.wrong:
        made.wrong += expected.differences(Result.of(out))
        made.wrong += [f"left behind: {path}" for path in leftovers(out)]
    for since, leader in watched:
        while session(leader) and time.monotonic() < since + ORPHAN_SECONDS:
            time.sleep(0.1)
        made.wrong += [f"process {orphan} of session {leader} lives on" for orphan in session(leader)]
    made.seconds = round(time.monotonic() - began, 2)
    return made


def _stop(process: Process, stop: Stop, out: Path, rng: random.Random) -> bool:
    """Wait for the moment, do it, and wait for the end; False if it ended before."""
    if stop.aim == "checkpoint":
        status = _await_writing(process, out, rng.randrange(12))
    else:
        status = process.wait(stop.after)
    if status is not None:
        stop.status = status
        return False
    if stop.how == "kill-worker":
        workers = [pid for pid in session(process.pid) if pid != process.pid]
        if not workers:
            os.kill(process.pid, signal.SIGKILL)
            stop.how = "kill"
        else:
            os.kill(rng.choice(workers), signal.SIGKILL)
    elif stop.how == "kill-group":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its session yet
            os.kill(process.pid, signal.SIGKILL)
    else:
        number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}[stop.how]
        os.kill(process.pid, number)
    stop.status = process.wait(60)
    if stop.status is None:
        stop.status = -999
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    return True


def _await_writing(process: Process, out: Path, number: int) -> int | None:
    """Until the number-th temporary file is being written (checkpoint, weights or run.json in turn)."""
    seen: set[tuple[str, int]] = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in _temporary(out):
            try:
                seen.add((path.name, path.stat().st_ino))
            except OSError:
                continue
            if len(seen) > number:
                return None
        status = process.wait(0)
        if status is not None:
            return status
    return None


def _manners(stop: Stop, output: Path) -> Iterator[str]:
    """How a process has to end when it is stopped in this way."""
    said = output.read_text(errors="replace")
    if stop.status == -999:
        yield f"HANG after {stop.how}: {said[-500:]}"
    if stop.how in ("kill", "kill-group") and stop.status not in (-signal.SIGKILL, 0):
        yield f"{stop.how}: status {stop.status}"
    # Before it trains there is nothing to save, and the signal does what signals do.
    if stop.how == "terminate" and stop.status not in (0, -signal.SIGTERM):
        yield f"SIGTERM: status {stop.status}: {said[-500:]}"
    if stop.how == "interrupt" and stop.status not in (0, 130):
        yield f"SIGINT: status {stop.status}: {said[-500:]}"
    if stop.how == "kill-worker":
        if stop.status not in (0, 2):
            yield f"a worker was killed: status {stop.status}: {said[-1500:]}"
        if stop.status == 2 and "worker" not in said.splitlines()[-1] + said[-400:]:
            yield f"a worker was killed, and the error does not say so: {said[-500:]}"
    if "Traceback" in said:
        yield f"a traceback after {stop.how}: {said[said.index('Traceback') :][:3000]}"


def last_step(run: Path) -> int | None:
    try:
        lines = (run / "log.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except FileNotFoundError:
        return None
    except ValueError:
        return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


def _temporary(run: Path) -> Iterator[Path]:
    for folder in (run, run / "checkpoints"):
        try:
            yield from [Path(e.path) for e in os.scandir(folder) if e.name.endswith((".tmp", ".part"))]
        except OSError:
            continue


def leftovers(run: Path) -> list[Path]:
    """Files in a finished run folder that do not belong there."""
    return [path for path in run.rglob("*") if path.name.endswith((".tmp", ".part"))]
