"""What bounds each backbone's training step, from a profile of ours and of its peer.

    python benchmarks/backbones_profile.py --out benchmarks/profiles/backbones.json [--only resnet] [--threads 1]

Forward and backward of the rows of `backbones.py`, the order of the two networks reversed from round to round. Of every kernel: how
often it is called in a step, and its own time. Where both call the same kernels equally often,
what is left between them is the machine's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from backbones import ROWS, Logits, backward, peer
from decode import machine
from torch.profiler import ProfilerActivity, profile

import unveil
from unveil.run import versions

KEPT = 10
"""Kernels of a row, the dearest first."""


def measure(name: str, batch: int, rounds: int) -> dict[str, Any] | None:
    row = ROWS[name]
    theirs = peer(row.peer)
    if theirs is None:
        print(f"  {row.peer} is not installed: passed over")
        return None
    networks = {"peer": theirs.train(), "unveil": Logits(unveil.build(row.recipe, **row.flags).objective).train()}
    x = torch.randn(batch, *row.shape)
    kernels: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):  # the first warms up
        for whose, network in list(networks.items())[:: 1 if number % 2 else -1]:
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                backward(network, x)
            for event in seen.key_averages() if number else ():
                row_ = kernels.setdefault(event.key, {whose_: [0.0, 0.0] for whose_ in networks})
                row_[whose][0] += event.count / rounds
                row_[whose][1] += event.self_cpu_time_total / 1e6 / rounds
    total = {whose: sum(row_[whose][1] for row_ in kernels.values()) for whose in networks}
    dearest = sorted(kernels, key=lambda kernel: -sum(seconds for _, seconds in kernels[kernel].values()))
    alike = [kernel for kernel in kernels if kernels[kernel]["peer"][0] == kernels[kernel]["unveil"][0]]
    return {
        "peer": row.peer,
        "shape": [batch, *row.shape],
        "seconds": {whose: round(value, 3) for whose, value in total.items()},
        "share in kernels that both call equally often": round(
            sum(kernels[kernel]["unveil"][1] for kernel in alike) / total["unveil"], 4
        ),
        "kernels": {
            kernel: {whose: {"calls": row_[0], "seconds": round(row_[1], 4)} for whose, row_ in kernels[kernel].items()}
            for kernel in dearest[:KEPT]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": f"{machine()}, {arguments.threads} threads"}
    report |= {"versions": versions(), "rounds": arguments.rounds}
    for name in ROWS:
        if name.startswith(arguments.only) and (found := measure(name, arguments.batch, arguments.rounds)) is not None:
            report["rows"][name] = found
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
            dear = ", ".join(list(found["kernels"])[:3])
            print(name, found["seconds"], found["share in kernels that both call equally often"], dear, flush=True)


if __name__ == "__main__":
    main()
