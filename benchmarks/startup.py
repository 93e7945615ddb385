"""How long a training verb takes to ask for its first batch, by the number of rows in the manifest.

    python benchmarks/startup.py --out benchmarks/results/startup.json

Writes two folders, of 100 and of 100,000 files in ten and in 400 classes (links to eight real clips), with the manifest that
`unveil data check` would leave. Then `unveil train` (labels, a validation split that is drawn) and `unveil pretrain` on each in turn,
A B A B …: in one process that has imported everything, from the call of the verb until its loop asks for the first batch
("verb"); and as processes of their own, which is what a person waits for ("process").
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import unveil
from unveil.data import Manifest, manifest_file
from unveil.data.builtin import write_h264
from unveil.run import versions
from unveil.training import loop

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4, "loader.workers": 0, "max_steps": 10, "quiet": True}
SIZES = {100: 10, 100_000: 400}  # files: classes


class Started(Exception):
    """The loop has asked for its first batch."""


def first_batch(*_: object, **__: object):
    raise Started
    yield


def folder_of(work: Path, files: int, classes: int) -> Path:
    folder = work / str(files)
    sources = [work / f"source{i}.mp4" for i in range(8)]  # one file has at most 65,000 names
    for i, source in enumerate(sources):
        if not source.exists():
            write_h264(source, np.full((8, 32, 32, 3), 30 * i, np.uint8))
    for number in range(classes):
        (folder / f"class{number:03d}").mkdir(parents=True)
    for number in range(files):
        os.link(sources[number % 8], folder / f"class{number % classes:03d}" / f"video{number:06d}.mp4")
    source = manifest_file.survey(str(folder), str(folder), {".mp4"})
    table = Manifest.scan([folder], {".mp4"}).table
    measured: dict[str, list] = {
        "hash": [f"{number:032x}" for number in range(files)],
        "duration": [2.0] * files,
        "fps": [8.0] * files,
        "width": [32] * files,
        "height": [32] * files,
        "frames": [8] * files,
        "has_audio": [False] * files,
        "size": [1000] * files,
        "mtime_ns": [0] * files,
        "error": [None] * files,
    }
    for field in manifest_file.MEASURED:
        table = table.append_column(field, pa.array(measured.get(field.name, [None] * files), field.type))
    file = str(folder / manifest_file.NAME)
    manifest_file.write(table, file, [source])
    manifest_file.stamp(file, [source])
    return folder


def seconds(verb: str, data: Path, out: Path) -> float:
    began = time.perf_counter()
    try:
        getattr(unveil, verb)("videomae", data=data, out=out, **TINY)
    except Started:
        return time.perf_counter() - began
    finally:
        shutil.rmtree(out, ignore_errors=True)
    raise RuntimeError("the loop asked for no batch")


def process_seconds(verb: str, data: Path, out: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--once", verb, str(data), str(out)], check=True)
    return time.perf_counter() - began


def main(out: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = {files: folder_of(work, files, classes) for files, classes in SIZES.items()}
        rows = []
        for what, measure in (("verb", seconds), ("process", process_seconds)):
            for verb in ("train", "pretrain"):
                found: dict[int, list[float]] = {files: [] for files in SIZES}
                for number in range(rounds + 1):
                    for files, folder in folders.items():
                        spent = measure(verb, folder, work / "run")
                        if number:  # the first round warms up
                            found[files].append(round(spent, 4))
                few, many = (statistics.median(values) for values in found.values())
                spread = [round(max(values) - min(values), 4) for values in found.values()]
                rows.append({"what": what, "verb": verb, "seconds": found, "median": [few, many], "spread": spread})
                print(
                    f"{what} {verb}: {few:.3f} s with 100 rows, {many:.3f} s with 100,000; max − min {spread}",
                    flush=True,
                )
    result = {
        "what": "seconds until a training verb asks for its first batch, with 100 and with 100,000 rows in the manifest",
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "versions": versions(),
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/startup.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--once", nargs=3, metavar=("VERB", "DATA", "RUN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    loop.training_batches = first_batch
    if given.once:
        seconds(given.once[0], Path(given.once[1]), Path(given.once[2]))
    else:
        main(given.out, given.rounds)
