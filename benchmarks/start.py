"""What a person waits for before anything happens: `unveil --help`, `import unveil`, the first step of a training.

    python benchmarks/start.py --out benchmarks/results/start.json [--tiny]

Processes of their own, in turn, every second round the other way round: an interpreter that does nothing, `import unveil`, `unveil
--help`, `import torch`, and `unveil pretrain videomae` on a few clips made here, from its start until log.jsonl has its first step.
Besides the clock, the CPU time of each process and of what it started. The bound is told by `-X importtime`: which packages' modules
the time of a training's start goes to. What a long manifest adds is another question: benchmarks/startup.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from decode import machine

from unveil import verbs
from unveil.run import versions

LIMITS = {"import unveil": 0.3, "unveil --help": 0.5, "first step": 8.0}
"""Seconds that each may take; of the first step besides the data."""
NETWORK = ["--size", "debug", "--frames", "8", "--crop", "32", "--patch", "8"]
TRAINING = [*NETWORK, "--loader.batch", "16", "--schedule.batch", "16", "--max-steps", "1", "--device", "cpu"]
UNVEIL = [sys.executable, "-m", "unveil.cli"]
COMMANDS = {
    "python": [sys.executable, "-c", ""],
    "import unveil": [sys.executable, "-c", "import unveil"],
    "unveil --help": [*UNVEIL, "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def spent(command: list[str], sign: Path | None = None) -> tuple[float, float]:
    """Seconds of a command, by the clock and of the CPU; by the clock until `sign` has something in it."""
    before = os.times()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = None
    while process.poll() is None:
        if sign is not None and seen is None and sign.exists() and sign.stat().st_size:
            seen = time.perf_counter() - began
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    after = os.times()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return round(seconds if seen is None else seen, 3), round(cpu, 3)


def imports(command: list[str]) -> list[dict[str, Any]]:
    """Seconds that a command spends in the modules of each package while they are imported, the dearest first."""
    timed = [command[0], "-X", "importtime", *command[1:]]
    lines = subprocess.run(timed, capture_output=True, text=True, check=True).stderr.splitlines()
    own: dict[str, float] = defaultdict(float)
    for line in lines:
        if line.startswith("import time:") and line.split("|")[0].split()[-1].isdigit():
            name = line.split("|")[2].strip().split(".")[0]
            own[name] += int(line.split("|")[0].split()[-1]) / 1e6
    dear = sorted(own.items(), key=lambda item: -item[1])[:8]
    return [{"package": name, "seconds": round(seconds, 3)} for name, seconds in dear]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/start.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="one round")
    asked = parser.parse_args()
    rounds = 1 if asked.tiny else asked.rounds
    rows: dict[str, Any] = {name: {"seconds": [], "cpu_seconds": []} for name in [*COMMANDS, "first step"]}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        verbs.builtin("moving-digits", out=work / "clips", unlabelled=32, labelled=10, test=10)
        run = work / "run"
        training = [*UNVEIL, "pretrain", "videomae", "--data", str(work / "clips" / "unlabelled"), "--out", str(run)]
        training += TRAINING
        for number in range(rounds + 1):
            for row in list(rows)[:: -1 if number % 2 else 1]:
                if row == "first step":
                    found = spent(training, run / "log.jsonl")
                    # The share of the step for which it waited, for its data.
                    step = json.loads((run / "log.jsonl").read_text().splitlines()[0])
                    shutil.rmtree(run)
                else:
                    found, step = spent(COMMANDS[row]), None
                if number:  # the first round reads files into memory
                    rows[row]["seconds"].append(found[0])
                    rows[row]["cpu_seconds"].append(found[1])
                    if step is not None:
                        rows[row].setdefault("first_line", []).append(step)
        bound = {"unveil --help": imports(COMMANDS["unveil --help"]), "first step": imports(training)}
    for name, row in rows.items():
        row["median"] = statistics.median(row["seconds"])
        row["spread"] = round(max(row["seconds"]) - min(row["seconds"]), 3)
        row["limit"] = LIMITS.get(name)
        print(f"{name}: {row['median']:.3f} s (± {row['spread'] / 2:.3f})", flush=True)
    torch = [a / b for a, b in zip(rows["import torch"]["seconds"], rows["first step"]["seconds"], strict=True)]
    rows["first step"]["share_of_import_torch"] = round(statistics.median(torch), 3)
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    result |= {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "rounds": rounds}
    result |= {"training": " ".join(["unveil pretrain videomae", *TRAINING]), "rows": rows, "bound": bound}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
