"""Whole pre-training steps next to other packages' of the same network, and what leaving masked patches out of the encoder saves.

    python benchmarks/steps.py --out benchmarks/results/steps.json [--only videomae] [--threads 1] [--compile]
    python benchmarks/steps.py --out /tmp/steps.json --tiny  # does it run?

A step draws masks, runs forward and backward and AdamW (fused, on every side) on the same random signal. All contestants of a row are
in one process, built anew one after the other in every round, every second round the other way round; the first step of each warms
up. Ratios are within a round. Peak memory is what PyTorch's allocator gave out at most during a step, beyond weights and optimiser.
Peers (`pip install unveil[peers]`) that are not installed are left out, and said.

The last rows compare a step with one whose encoder sees a token in place of every masked patch; the decoder is the same. The papers:
MAE 3 × or more, MAE-ST more than 4 × the speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from allocated import peak
from contestants import CONTESTANTS, PEERS, SAVED, TINY, Network, Step, ours
from decode import machine
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unveil.run import versions

KEPT = 8
"""Kernels of a row's profile, the dearest first."""
PAPER = {"mae L": 3.0, "mae_st L": 4.0}


def measured(row: dict[str, Callable[[], Step]], rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Seconds of a step of each contestant in each round, and its peak memory.

    A contestant whose network is compiled as a whole is one more: the better of the two counts.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    ways = {name: (make_, False) for name, make_ in row.items()}
    if compiled:
        ways |= {f"{name}, compiled": (make_, True) for name, make_ in row.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    for number in range(rounds):
        for name, (make_, compile_) in list(ways.items())[:: -1 if number % 2 else 1]:
            torch.manual_seed(0)
            step = make_()
            if compile_:
                step.network.compile()
            step()
            began = clock()
            for _ in range(steps):
                step()
            seconds[name].append((clock() - began) / steps)
            if number == rounds - 1:
                memory[name] = peak(step, torch.device("cpu"))
            del step
            gc.collect()
    return {"seconds": {k: [round(s, 4) for s in v] for k, v in seconds.items()}, "peak_bytes": memory}


def ratios(seconds: dict[str, list[float]], against: str) -> dict[str, dict[str, Any]]:
    """Each contestant's time as a multiple of one's, within the rounds: median and quartiles."""
    found = {}
    for name, own in seconds.items():
        ratio = [a / b for a, b in zip(own, seconds[against], strict=True)]
        low, _, high = statistics.quantiles(ratio, n=4) if len(ratio) > 1 else [ratio[0]] * 3
        found[name] = {"median": round(statistics.median(ratio), 3), "quartiles": [round(low, 3), round(high, 3)]}
    return found


def kernels(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """The dearest kernels of what has warmed up, as shares of it."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    events: list[Any] = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {"kernel": e.key, "calls": e.count, "share": round(e.self_cpu_time_total / total, 4)} for e in events[:KEPT]
    ]


def bound(step: Step) -> list[dict[str, Any]]:
    """The dearest kernels of a step, as shares of it."""
    step()
    return kernels(step)


def flops(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step.loss().backward()
    return counter.get_total_flops()


def shrunk(network: Network) -> Network:
    flags = TINY[network.recipe]
    shape = (3, *([flags["frames"]] if "frames" in flags else []), flags["crop"], flags["crop"])
    return Network(network.recipe, flags, shape, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="every contestant compiled, too")
    parser.add_argument("--tiny", action="store_true", help="networks that only show that everything runs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{machine()}, {asked.threads} threads"
    report: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": {}}
    if report.get("machine", where) != where:
        parser.error(f"{asked.out} was measured on {report['machine']}, this is {where}: name another file.")
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions(), "rounds": asked.rounds}
    for name, network in {**PEERS, **SAVED}.items():
        if not name.startswith(asked.only):
            continue
        network = shrunk(network) if asked.tiny else network
        row: dict[str, Callable[[], Step]] = {"unveil": lambda network=network: ours(network)}
        if name in SAVED:
            row["every token"] = lambda network=network: ours(network, every_token=True)
        for peer, make_ in CONTESTANTS.get(name, {}).items():
            try:
                torch.manual_seed(0)
                make_(network)
            except ModuleNotFoundError as error:
                print(f"{name}: {peer} is left out: {error}")
                continue
            row[peer] = lambda make_=make_, network=network: make_(network)
        found = measured(row, asked.rounds, asked.steps, asked.compile)
        found |= {"batch": network.batch, "shape": network.shape, "flags": network.flags}
        found["times_unveil"] = ratios(found["seconds"], "unveil")
        found["parameters"] = {k: sum(p.numel() for p in make_().network.parameters()) for k, make_ in row.items()}
        if name in SAVED:
            found["flops"] = {contestant: flops(make_()) for contestant, make_ in row.items()}
            found["paper"] = PAPER.get(name)
        found["profile"] = bound(row["unveil"]())
        report["rows"][name] = found
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")
        print(name, json.dumps({k: found[k] for k in ("times_unveil", "peak_bytes")}), flush=True)


if __name__ == "__main__":
    main()
