"""What the loader delivers: training clips through 1 and 2 workers, by how many crops are taken of each decoded clip.

    python benchmarks/loading.py --out benchmarks/results/loading.json
    python benchmarks/loading.py --out /tmp/loading.json --tiny  # does it run?

The clips are those of benchmarks/clips.py, as filmed; a sample goes the whole way of VideoMAE's recipe: decoded, cut, resized,
mirrored, normalised, stacked, and handed to the training's process. In each round one thread reads clips by itself, as
benchmarks/clips.py measures it; then every loader delivers batches of 4 rows, its first ones not counted; every second round the
other way round. Rates are of wall-clock time: n workers need n free cores. Another program's share is lost, and cores may share a
clock: so n workers are also held against n processes that read clips without a loader.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from clips import FILES, ORIGINAL, TINY_FILES, drawn, folders, own_clip, recipe_data, spread
from decode import machine

from unveil.data import Dataset, Manifest, TrainingOrder, training_batches
from unveil.recipe import Loader
from unveil.run import versions

WORKERS, REPEATS, ROWS = (1, 2), (1, 2, 4), 4


def rate_alone(folder: Path, clips: int, seed: int) -> float:
    """Clips a second, of one thread: decoded, cut, resized."""
    torch.set_num_threads(1)
    data = recipe_data()
    files = sorted(folder.glob("*.mp4"))
    cases = [drawn(data, files[(seed + number) % len(files)], seed + number) for number in range(clips + 1)]
    own_clip(data, cases[0])
    began = time.perf_counter()
    for case in cases[1:]:
        own_clip(data, case)
    return clips / (time.perf_counter() - began)


def rate_together(folder: Path, clips: int, seed: int, count: int) -> float:
    """The same of `count` processes at once, added up."""
    with multiprocessing.get_context("fork").Pool(count) as pool:
        return sum(pool.starmap(rate_alone, [(folder, clips, seed + 100 * number) for number in range(count)]))


def rate_of_loader(folder: Path, workers: int, repeats: int, batches: int, seed: int) -> float:
    """Clips a second that arrive, once the loader's stock is used up."""
    data = recipe_data()
    data.repeats = repeats
    manifest = Manifest.scan([folder], data.signal.suffixes)
    dataset = Dataset(manifest, data, None, training=True, seed=seed)
    loader = Loader(batch=ROWS, workers=workers)
    arriving = training_batches(dataset, TrainingOrder(len(dataset), ROWS, seed), loader, micro=ROWS)
    try:
        for _ in range(workers + 1):  # the first of each worker, which opens libraries
            next(arriving)
        count, began = 0, time.perf_counter()
        for _ in range(batches * workers):
            count += sum(len(batch["index"]) for batch in next(arriving))
        return count / (time.perf_counter() - began)
    finally:
        arriving.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/clips"), help="where the videos are kept")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12, help="timed, of each worker")
    parser.add_argument(
        "--tiny", action="store_true", help="few videos and rounds, which only show that everything runs"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rounds, batches = (2, 2) if asked.tiny else (asked.rounds, asked.batches)
    folder = folders(asked.work, TINY_FILES if asked.tiny else FILES)[ORIGINAL]
    clips = ROWS * batches
    alone: list[float] = []
    together: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    rates: dict[tuple[int, int], list[float]] = {(w, r): [] for w in WORKERS for r in REPEATS}
    for number in range(rounds):
        alone.append(rate_alone(folder, clips, number))
        for workers in WORKERS:
            together[workers].append(rate_together(folder, clips, number, workers))
        for (workers, repeats), found in list(rates.items())[:: -1 if number % 2 else 1]:
            found.append(rate_of_loader(folder, workers, repeats, batches, number))
    rows: list[dict[str, Any]] = []
    for (workers, repeats), found in rates.items():
        rows.append(
            {
                "workers": workers,
                "repeats": repeats,
                "clips_per_s": [round(rate, 2) for rate in found],
                "of_one_thread": spread([a / (workers * b) for a, b in zip(found, alone, strict=True)]),
                "of_as_many_processes": spread([a / b for a, b in zip(found, together[workers], strict=True)]),
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "clips_per_s"}, flush=True)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "threads": 1,
        "rounds": rounds,
        "clips_per_s_of_one_thread": [round(rate, 2) for rate in alone],
        "clips_per_s_of_processes": {str(n): [round(rate, 2) for rate in found] for n, found in together.items()},
        "rows": rows,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
