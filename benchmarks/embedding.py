"""A folder of short clips → embeddings, on the command line: `unveil embed` next to a script with transformers and torchcodec.

    python benchmarks/embedding.py --out benchmarks/results/embedding.json [--only "VideoMAE-S"]
    python benchmarks/embedding.py --out /tmp/embedding.json --tiny  # does it run?

VideoMAE-S, not trained, made by `unveil pretrain --max-steps 0` and exported for transformers, so that both compute with the same
weights; the embeddings must agree. Clips of 64 frames, H.264, 340 x 256: sixteen are encoded, further files are links to them. A
round runs both commands from start to end, imports and all, in turn, held to the same cores, with as many threads as cores; on
several cores both decode in one process less than cores, ahead of the network. The script takes 8 clips through the network at once,
and 2; the better counts. Seconds are the processor's where there is one core, the clock's otherwise. The peer:
benchmarks/peers/videomae_embeddings.py. Rows that were measured before are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from clips import HEIGHT, WIDTH, spread
from decode import X264, encode, machine
from decode import versions as libraries

from unveil.run import versions

PEER = Path(__file__).parent / "peers" / "videomae_embeddings.py"
LENGTH, DISTINCT = 64, 16
UNVEIL, TRANSFORMERS = "unveil", "transformers"
CLOSE = {"32": 1e-4, "bf16": 0.05}
"""Of the largest value, the most by which embeddings may differ."""
BATCHES = (8, 2)
"""Clips at once: unveil is given the first and takes what suits the machine; of the peer the better one counts."""


class Job(NamedTuple):
    """Which VideoMAE, how many clips, on how many cores, in which precision."""

    size: str
    count: int
    cores: int
    precision: str = "32"


JOBS = {
    "VideoMAE-S, one core": Job("S", 40, 1),
    "VideoMAE-Ti, one core": Job("Ti", 80, 1),
    "VideoMAE-Ti, two cores": Job("Ti", 160, 2),
    "VideoMAE-S, bf16, one core": Job("S", 64, 1, "bf16"),
    "VideoMAE-Ti, bf16, one core": Job("Ti", 96, 1, "bf16"),
}


def folder_of(work: Path, count: int) -> Path:
    folder, sources = work / f"clips{count}", work / "distinct"
    sources.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(count):
        source = sources / f"{number % DISTINCT}.mp4"
        if not source.exists():
            encode(source, "libx264", WIDTH, HEIGHT, LENGTH, X264, seed=number)
        os.link(source, folder / f"{number:05d}.mp4")
    return folder


def unveil(*words: str | int | Path) -> list[str]:
    return [sys.executable, "-m", "unveil.cli", *map(str, words)]


def models_of(work: Path, data: Path, size: str) -> tuple[Path, Path]:
    """A run of an untrained network, and the same for transformers."""
    run, exported = work / f"run{size}", work / f"transformers{size}"
    if not (exported / "config.json").exists():
        settings = ("--size", size, "--max-steps", "0", "--device", "cpu", "--quiet")
        subprocess.run(unveil("pretrain", "videomae", "--data", data, "--out", run, *settings), check=True)
        out = ("--format", "huggingface", "--part", "encoder", "--out", exported, "--overwrite", "--quiet")
        subprocess.run(unveil("export", run, *out), check=True)
    return run, exported


def seconds(command: list[str], cores: int) -> tuple[float, float]:
    """Of the clock and of the processor, held to some of the cores that this process may use."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": str(cores)}, preexec_fn=lambda: os.sched_setaffinity(0, mine)
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def difference(index: Path, array: Path) -> float:
    """The largest between the embeddings, as a share of the largest value."""
    table = pq.read_table(index / "embeddings.parquet")
    own = np.array(table["embedding"].to_pylist(), np.float32)
    names = [Path(path).name for path in table["path"].to_pylist()]
    assert names == sorted(names)
    theirs = np.load(array)
    assert own.shape == theirs.shape, f"{own.shape} embeddings, and {theirs.shape}"
    return float(np.abs(own - theirs).max() / np.abs(theirs).max())


def measured(job: Job, work: Path, rounds: int) -> dict[str, Any]:
    size, count, cores, precision = job
    data = folder_of(work, count)
    run, exported = models_of(work, data, size)
    index, array, ahead = work / "index", work / "embeddings.npy", str(cores - 1)
    common = ("--workers", ahead, "--precision", precision)
    settings = ("--batch", BATCHES[0], "--device", "cpu", "--overwrite", "--quiet")
    commands = {UNVEIL: unveil("embed", run, "--data", data, "--out", index, *common, *settings)}
    for batch in BATCHES:
        peer = (PEER, exported, data, array, "--batch", batch, *common)
        commands[f"{TRANSFORMERS}, {batch} at once"] = [sys.executable, *map(str, peer)]
    for command in commands.values():  # reads libraries and clips from the disk; not timed
        seconds(command, cores)
    differs = difference(index, array)
    if differs > CLOSE[precision]:
        raise SystemExit(f"the embeddings differ by {differs:.2g} of the largest value")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in list(commands.items())[:: -1 if number % 2 else 1]:
            wall, cpu = seconds(command, cores)
            found[name].append({"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)})
    what = "cpu_s" if cores == 1 else "wall_s"
    taken = {name: [run[what] for run in runs] for name, runs in found.items()}
    best = min((name for name in taken if name != UNVEIL), key=lambda name: statistics.median(taken[name]))
    return {
        "size": size,
        "count": count,
        "threads": cores,
        "workers": cores - 1,
        "precision": precision,
        "what": what,
        "rounds": rounds,
        "largest_difference": differs,
        "best_peer": best,
        "median_s": {name: round(statistics.median(values), 2) for name, values in taken.items()},
        "times_unveil": spread([a / b for a, b in zip(taken[best], taken[UNVEIL], strict=True)]),
        "runs": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("benchmarks/work/embedding"), help="where clips and networks are kept"
    )
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="few clips, which only show that everything runs")
    asked = parser.parse_args()
    report = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": {}}
    if report.get("machine", machine()) != machine():
        parser.error(f"{asked.out} was measured on {report['machine']}, this is {machine()}: name another file.")
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "batches": BATCHES}
    report |= {"versions": {**versions(), **libraries(), "transformers": version("transformers")}}
    for name, job in JOBS.items():
        if not name.startswith(asked.only) or job.cores > len(os.sched_getaffinity(0)):
            continue
        row = measured(job._replace(count=9) if asked.tiny else job, asked.work, 2 if asked.tiny else asked.rounds)
        report["rows"][name] = row
        print(name, {key: row[key] for key in ("count", "median_s", "times_unveil", "largest_difference")}, flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
