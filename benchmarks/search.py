"""Exact search in a million embeddings next to faiss's flat index, one thread each: seconds and memory.

    python benchmarks/search.py --out benchmarks/results/search.json
    python benchmarks/search.py --out /tmp/search.json --tiny  # does it run?

Random vectors of length one. "memory": the vectors are in memory on both sides; queries one at a time, 32 and 256 at once. "file": an
index on the disk whose pages the system still holds; unveil reads where its hits lie, too (`unveil search` after the query is
embedded), faiss opens its file mapped into memory. In turn, every second round the other way round; ratios are within a round. Before
that the answers are compared. faiss (`pip install unveil[peers]`) is left out where it is not installed, and that is said.

Memory: what a process of its own holds at most beyond the vectors: what it cannot give back (RssAnon), sampled while it searches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from decode import machine
from steps import kernels, ratios

from unveil.evaluation.neighbours import neighbours
from unveil.run import versions
from unveil.serve import nearest
from unveil.serve.embed import EMBEDDINGS, FORMAT, INDEX, ROW_GROUP, VECTORS, _schema

K = 10
BATCHES = (1, 32, 256)
FAISS = "index.faiss"


def vectors(count: int, width: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for first in range(0, count, ROW_GROUP):
        x = rng.standard_normal((min(ROW_GROUP, count - first), width), np.float32)
        yield x / np.linalg.norm(x, axis=1, keepdims=True)


def index(folder: Path, count: int, width: int) -> None:
    """A folder as `unveil embed` writes it, of windows of films."""
    schema = _schema(width)
    first = 0
    with pq.ParquetWriter(folder / EMBEDDINGS, schema) as writer, (folder / VECTORS).open("wb") as file:
        for x in vectors(count, width, 0):
            rows = np.arange(first, first + len(x))
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), width)
            paths = pa.array([f"/films/{row // 100:05d}.mp4" for row in rows])
            begin = pa.array(rows % 100 * 2.0)
            table = pa.table([paths, begin, pa.array(rows % 100 * 2.0 + 2), embedding], schema=schema)
            writer.write_table(table)
            file.write(x.tobytes())
            first += len(x)
    info = {"format": FORMAT, "run": "", "weights": "", "layer": None, "pool": "mean", "hop": None, "width": width}
    (folder / INDEX).write_text(json.dumps(info))


def loaded(folder: Path, width: int) -> np.ndarray:
    return np.fromfile(folder / VECTORS, np.float32).reshape(-1, width)


def flat(x: np.ndarray | None, file: Path | None = None) -> Any:
    """faiss's flat index of inner products, of vectors or of a file; None where faiss is not installed."""
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        print(f"faiss is left out: {error}", file=sys.stderr)
        return None
    faiss.omp_set_num_threads(1)
    if file is not None and x is None:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
    assert x is not None
    made = faiss.IndexFlatIP(x.shape[1])
    made.add(x)
    if file is not None:
        faiss.write_index(made, str(file))
    return made


def in_turn(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in list(ways.items())[:: -1 if number % 2 else 1]:
            began = time.process_time()
            way()
            if number:
                seconds[name].append(round(time.process_time() - began, 5))
    return seconds


def memory(who: str, folder: Path, width: int, batch: int) -> int:
    """Bytes of anonymous memory that a process of its own holds at most while it searches a file, beyond before."""
    command = [sys.executable, __file__, "--once", who, str(folder), str(width), str(batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def once(who: str, folder: Path, width: int, batch: int) -> int:
    queries = next(vectors(batch, width, 1))
    tiny = torch.randn(64, width)
    neighbours(tiny, torch.from_numpy(queries), K)  # what libraries keep for themselves from their first call on
    if who == "faiss":
        flat(tiny.numpy()).search(queries, K)
    most = before = anonymous()
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.002):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    if who == "faiss":
        flat(None, folder / FAISS).search(queries, K)
    else:
        nearest(folder, queries, K)
    over.set()
    watcher.join()
    return most - before


def in_memory(folder: Path, width: int, rounds: int) -> dict[str, Any]:
    x = loaded(folder, width)
    gallery, theirs = torch.from_numpy(x), flat(x, folder / FAISS)
    rows = {}
    for batch in BATCHES:
        queries = next(vectors(batch, width, 1))
        mine = torch.from_numpy(queries)
        ways: dict[str, Callable[[], Any]] = {"unveil": partial(neighbours, gallery, mine, K)}
        row: dict[str, Any] = {}
        if theirs is not None:
            ways["faiss"] = partial(theirs.search, queries, K)
            row["same"] = same(ways["unveil"](), ways["faiss"]())
        # A batch of 256 takes faiss half a minute: so that rows take about as long, it has fewer rounds.
        row["seconds"] = in_turn(ways, rounds if batch < 256 else max(2, rounds // 3))
        row |= {"times_unveil": ratios(row["seconds"], "unveil"), "bound": kernels(ways["unveil"])[:4]}
        rows[f"memory, {batch} at once"] = row
        print(batch, json.dumps(row["times_unveil"]), flush=True)
    return rows


def in_a_file(folder: Path, width: int, rounds: int) -> dict[str, Any]:
    queries = next(vectors(1, width, 1))
    ways: dict[str, Callable[[], Any]] = {"unveil": lambda: nearest(folder, queries, K)}
    if (folder / FAISS).exists():
        ways["faiss"] = lambda: flat(None, folder / FAISS).search(queries, K)
    row: dict[str, Any] = {"seconds": in_turn(ways, rounds)}
    row |= {"times_unveil": ratios(row["seconds"], "unveil"), "bound": kernels(ways["unveil"])[:4]}
    row["anonymous_bytes"] = {who: {n: memory(who, folder, width, n) for n in BATCHES[:2]} for who in ways}
    print("file", json.dumps(row["times_unveil"]), row["anonymous_bytes"], flush=True)
    return {"file, 1 at once": row}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search.json"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    parser.add_argument("--once", nargs=4, metavar=("WHO", "FOLDER", "WIDTH", "BATCH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.once:
        print(once(asked.once[0], Path(asked.once[1]), int(asked.once[2]), int(asked.once[3])))
        return
    count, width, rounds = (20_000, 32, 2) if asked.tiny else (asked.rows, asked.width, asked.rounds)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=asked.out.parent) as name:  # a temporary folder may itself be memory
        folder = Path(name)
        index(folder, count, width)
        rows |= in_memory(folder, width, rounds)
        rows |= in_a_file(folder, width, rounds)
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": f"{machine()}, 1 threads"}
    found |= {"versions": versions() | peers(), "threads": 1, "rows_of_the_index": count, "width": width, "k": K}
    found |= {"bytes_of_the_vectors": 4 * count * width, "rounds": rounds, "rows": rows}
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


def same(mine: tuple[torch.Tensor, torch.Tensor], theirs: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """The share of hits that are the same rows in the same places, and how far the products are apart at most.

    Two sums of the same numbers differ in their last bits, and so does the order of what is that near.
    """
    return {
        "rows": float((mine[1].numpy() == theirs[1]).mean()),
        "largest difference of products": float(np.abs(mine[0].numpy() - theirs[0]).max()),
    }


def peers() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"faiss-cpu": version("faiss-cpu")}
    except PackageNotFoundError:
        return {}


if __name__ == "__main__":
    main()
