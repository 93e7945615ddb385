"""How long training waits for data: VideoMAE's steps on clips from the loader next to the same steps on tensors in memory.

    python benchmarks/data_wait.py --out benchmarks/results/data_wait.json
    python benchmarks/data_wait.py --out /tmp/data_wait.json --tiny  # does it run?

Both are `unveil pretrain` itself, in one process, A B A B: with the clips of benchmarks/clips.py, as filmed, through one worker;
and with the loader's place taken by batches that were read before. One thread computes. What the run's log says of each step is
what counts, its seconds and the share of them that went by until the batch was there; the first steps, which fill the loader's
stock and PyTorch's caches, do not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from clips import FILES, ORIGINAL, TINY_FILES, folders, spread
from decode import machine

import unveil
from unveil.data import training_batches
from unveil.run import versions
from unveil.training import loop

WARM_UP = 2
FROM_LOADER, IN_MEMORY = "from the loader", "in memory"


def steps_of(data: Path, flags: dict[str, Any], steps: int, batch: int, in_memory: bool) -> list[dict[str, float]]:
    """Seconds of each step of a run, and the seconds of it that were spent waiting for the batch."""

    def held(dataset: Any, order: Any, loader: Any, *places: Any, **named: Any) -> Iterator[Any]:
        arriving = training_batches(dataset, order, loader, *places, **named)
        batches = [next(arriving) for _ in range(2)]
        arriving.close()
        yield from itertools.cycle(batches)

    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(loop, "training_batches", held if in_memory else training_batches),
    ):
        run = Path(name, "run")
        unveil.pretrain("videomae", data=data, out=run, max_steps=WARM_UP + steps, quiet=True, device="cpu", **flags)
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = []
    for line in [line for line in log if "data_wait" in line][WARM_UP:]:
        seconds = batch / line["samples_per_s"]
        found.append({"seconds": round(seconds, 4), "waited": round(line["data_wait"] * seconds, 4)})
    assert len(found) == steps
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/clips"), help="where the videos are kept")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8, help="that count, of each run")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", default="S")
    parser.add_argument("--tiny", action="store_true", help="a network and rounds that only show that everything runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    size, rounds, steps = ("debug", 2, 3) if asked.tiny else (asked.size, asked.rounds, asked.steps)
    data = folders(asked.work, TINY_FILES if asked.tiny else FILES)[ORIGINAL]
    batch = min(asked.batch, TINY_FILES) if asked.tiny else asked.batch
    flags = {"size": size, "schedule.batch": batch, "loader.batch": batch, "loader.workers": 1}
    found: dict[str, list[list[dict[str, float]]]] = {FROM_LOADER: [], IN_MEMORY: []}
    for number in range(rounds):
        for way in list(found)[:: -1 if number % 2 else 1]:
            found[way].append(steps_of(data, flags, steps, batch, way == IN_MEMORY))
    seconds = {way: [sum(step["seconds"] for step in run) / steps for run in runs] for way, runs in found.items()}
    waits = [sum(s["waited"] for s in run) / sum(s["seconds"] for s in run) for run in found[FROM_LOADER]]
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "threads": 1,
        "rounds": rounds,
        "size": size,
        "batch": batch,
        "workers": 1,
        "step_s": {way: round(statistics.median(values), 3) for way, values in seconds.items()},
        "data_wait": spread(waits),
        "times_in_memory": spread([a / b for a, b in zip(seconds[FROM_LOADER], seconds[IN_MEMORY], strict=True)]),
        "steps": found,
    }
    print({key: report[key] for key in ("step_s", "data_wait", "times_in_memory")})
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
