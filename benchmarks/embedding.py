"""A folder of short clips → embeddings, on the command line: `unveil embed` next to a script with transformers and torchcodec.

    python benchmarks/embedding.py --out benchmarks/results/embedding.json [--count 40] [--cores 1]
    python benchmarks/embedding.py --out /tmp/embedding.json --tiny  # does it run?

VideoMAE-S, not trained, made by `unveil pretrain --max-steps 0` and exported for transformers, so that both compute with the same
weights; the embeddings must agree. Clips of 64 frames, H.264, 340 x 256: sixteen are encoded, further files are links to them. A
round runs both commands from start to end, imports and all, in turn, held to the same cores: one process with as many threads as
cores. Seconds are the processor's where there is one core, the clock's otherwise. The peer:
benchmarks/peers/videomae_embeddings.py, with --workers processes that decode beside it.
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

import numpy as np
import pyarrow.parquet as pq
from clips import HEIGHT, WIDTH, spread
from decode import X264, encode, machine
from decode import versions as libraries

from unveil.run import versions

PEER = Path(__file__).parent / "peers" / "videomae_embeddings.py"
LENGTH, DISTINCT = 64, 16
UNVEIL, TRANSFORMERS = "unveil", "transformers"
CLOSE = 1e-4
"""Of the largest value, the most by which embeddings may differ."""


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


def unveil(*words: str | Path) -> list[str]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("benchmarks/work/embedding"), help="where clips and networks are kept"
    )
    parser.add_argument("--count", type=int, default=40, help="clips")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="of the peer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", default="S", help="of the network")
    parser.add_argument("--tiny", action="store_true", help="few clips, which only show that everything runs")
    asked = parser.parse_args()
    count, rounds = (4, 2) if asked.tiny else (asked.count, asked.rounds)
    data = folder_of(asked.work, count)
    run, exported = models_of(asked.work, data, asked.size)
    index, array, batch = asked.work / "index", asked.work / "embeddings.npy", str(asked.batch)
    own = unveil(
        "embed", run, "--data", data, "--out", index, "--batch", batch, "--device", "cpu", "--overwrite", "--quiet"
    )
    peer = [sys.executable, *map(str, (PEER, exported, data, array, "--batch", batch, "--workers", asked.workers))]
    commands = {UNVEIL: own, TRANSFORMERS: peer}
    for command in commands.values():  # reads libraries and clips from the disk; not timed
        seconds(command, asked.cores)
    differs = difference(index, array)
    if differs > CLOSE:
        raise SystemExit(f"the embeddings differ by {differs:.2g} of the largest value")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in list(commands.items())[:: -1 if number % 2 else 1]:
            wall, cpu = seconds(command, asked.cores)
            found[name].append({"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)})
    what = "cpu_s" if asked.cores == 1 else "wall_s"
    taken = {name: [run[what] for run in runs] for name, runs in found.items()}
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {**versions(), **libraries(), "transformers": version("transformers")},
        "threads": asked.cores,
        "workers of the peer": asked.workers,
        "count": count,
        "size": asked.size,
        "batch": asked.batch,
        "rounds": rounds,
        "what": what,
        "largest_difference": differs,
        "median_s": {name: round(statistics.median(values), 2) for name, values in taken.items()},
        "times_unveil": spread([a / b for a, b in zip(taken[TRANSFORMERS], taken[UNVEIL], strict=True)]),
        "runs": found,
    }
    print({key: report[key] for key in ("count", "median_s", "times_unveil", "largest_difference")})
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
