"""What a pre-training step costs as its clips, pictures, batches and networks grow, next to what its arithmetic grows by.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json [--only frames] [--tiny]

VideoMAE, forward, backward and AdamW, from a small base of which one thing is changed at a time: frames of a clip, side of its
pictures, clips in a batch, size of the network. Of each: seconds of a step, peak memory of a step beyond weights and optimiser,
floating-point operations (forward and backward, as PyTorch counts them). The base is timed in turn with each of the others
(A B A B), and what is told is time per operation as a multiple of the base's in the same round: no larger than 1 is no worse than
the algorithm's own growth. An exponent is the slope of a line through logarithms: of seconds, memory and operations against what
grows, which of a network is its parameters.

Also how long `unveil pretrain` takes to ask for its first batch, by the number of files in its manifest (see benchmarks/startup.py).
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import startup
import torch
from allocated import peak
from contestants import Network, Step, ours
from decode import machine
from steps import flops, kernels

from unveil.run import versions
from unveil.training import loop

BASE = {"frames": 16, "crop": 112, "batch": 2, "size": "Ti"}
AXES: dict[str, list[Any]] = {
    "frames": [8, 16, 32, 64, 128],
    "crop": [112, 160, 224, 320, 448],
    "batch": [1, 2, 4, 8, 16],
    "size": ["Ti", "S", "B", "L"],
}
TINY = {"frames": 4, "crop": 32, "batch": 1, "size": "debug"}
TINY_AXES: dict[str, list[Any]] = {"frames": [4, 8], "crop": [32, 64], "batch": [1, 2], "size": ["debug", "nano"]}
FILES, TINY_FILES = (10, 100, 1_000, 10_000, 100_000), (10, 100)


def network(point: dict[str, Any]) -> Network:
    flags = {name: point[name] for name in ("size", "frames", "crop")}
    return Network("videomae", flags, (3, point["frames"], point["crop"], point["crop"]), point["batch"])


def timed(step: Step) -> float:
    began = time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
    step()
    return (time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()) - began


def exponent(sizes: list[float], values: list[float]) -> float:
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 3)


def measured(points: dict[str, dict[str, Any]], base: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
    found = {}
    for name, point in points.items():
        torch.manual_seed(0)
        pair = {"base": ours(network(base)), "own": ours(network(point))}
        operations = {who: flops(step) for who, step in pair.items()}
        seconds: dict[str, list[float]] = {who: [] for who in pair}
        for step in pair.values():
            step.optimizer.zero_grad()
            step()
        for number in range(rounds):
            for who in list(pair)[:: -1 if number % 2 else 1]:
                seconds[who].append(round(timed(pair[who]), 4))
        growth = operations["own"] / operations["base"]
        shares = [own / first / growth for own, first in zip(seconds["own"], seconds["base"], strict=True)]
        low, middle, high = statistics.quantiles(shares, n=4) if len(shares) > 1 else shares * 3
        found[name] = {
            **point,
            "seconds": seconds,
            "median": statistics.median(seconds["own"]),
            "flops": operations["own"],
            "parameters": sum(parameter.numel() for parameter in pair["own"].network.parameters()),
            "peak_bytes": peak(pair["own"], torch.device("cpu")),
            "per_flop_times_base": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "bound": kernels(pair["own"])[:4],
        }
        print(f"  {name}: {found[name]['median']:.3f} s, per operation {middle:.2f} × the base's", flush=True)
        pair.clear()
        gc.collect()
    return found


def axis(name: str, values: list[Any], base: dict[str, Any], rounds: int) -> dict[str, Any]:
    print(name, flush=True)
    points = measured({str(value): base | {name: value} for value in values}, base, rounds)
    sizes = [point["parameters"] if name == "size" else float(point[name]) for point in points.values()]
    exponents = {
        what: exponent(sizes, [point[what] for point in points.values()]) for what in ("median", "flops", "peak_bytes")
    }
    return {"points": points, "exponents": exponents, "against": "parameters" if name == "size" else name}


def files(counts: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Seconds until the first batch is asked for."""
    loop.training_batches = startup.first_batch
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = {count: startup.folder_of(work, count, max(1, min(10, count // 5))) for count in counts}
        for number in range(rounds + 1):
            for count in list(counts)[:: -1 if number % 2 else 1]:
                spent = startup.seconds("pretrain", folders[count], work / "run")
                if number:  # the first round warms up
                    seconds[count].append(round(spent, 4))
    points = {str(count): {"files": count, "seconds": own} for count, own in seconds.items()}
    medians = [statistics.median(own) for own in seconds.values()]
    for point, median in zip(points.values(), medians, strict=True):
        point["median"] = median
        print(f"  {point['files']} files: {median:.3f} s", flush=True)
    return {"points": points, "exponents": {"median": exponent([*map(float, counts)], medians)}, "against": "files"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    parser.add_argument("--only", default="", help="what grows, if not all: frames, crop, batch, size or files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{machine()}, {asked.threads} threads"
    report: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {"axes": {}}
    if report.get("machine", where) != where:
        parser.error(f"{asked.out} was measured on {report['machine']}, this is {where}: name another file.")
    base, rounds = (TINY, 2) if asked.tiny else (BASE, asked.rounds)
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions(), "rounds": rounds}
    report |= {"base": base, "threads": asked.threads}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for name, values in (TINY_AXES if asked.tiny else AXES).items():
        if name.startswith(asked.only):
            report["axes"][name] = axis(name, values, base, rounds)
            asked.out.write_text(json.dumps(report, indent=1) + "\n")
    if "files".startswith(asked.only):
        report["axes"]["files"] = files(TINY_FILES if asked.tiny else FILES, rounds)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
