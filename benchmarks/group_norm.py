"""Group normalisation's claim in small: the error of a residual network by the batch that its norms see (arXiv:1803.08494, figure 1).

    python benchmarks/group_norm.py --data /data/cifar10 --out benchmarks/results/group_norm.json

`--data` holds train/ and test/, a folder a class. Both norms at batches of 2, 4, 8 and 16; the same epochs, augmentation and
seeds, and the same rule for the rate: --lr for 256 samples, in proportion to the batch. Nothing is tuned. Stopped and started
again it goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from decode import machine
from scored import Budget, top1

from unveil.run import versions

NORMS = ("batch", "group")
BATCHES = (2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/group_norm"), help="where the runs are kept")
    parser.add_argument("--recipe", default="resnet", help="with a flag --norm")
    parser.add_argument("--size", default="18")
    parser.add_argument("--width", type=int, default=32, help="channels of the stem")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--lr", type=float, default=0.4, help="for 256 samples")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--hours", type=float, default=4.0, help="no run is begun that would take longer in all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.hours)
    errors: dict[str, dict[str, list[float]]] = {}
    settings = {name: getattr(arguments, name) for name in ("recipe", "size", "width", "crop", "epochs", "lr")}
    for seed in range(arguments.seeds):
        for batch in reversed(sorted(arguments.batches)):
            for norm in NORMS:
                flags: dict[str, Any] = {
                    "size": arguments.size, "width": arguments.width, "norm": norm, "crop": arguments.crop, "seed": seed,
                    "optimizer.kind": "sgd", "optimizer.lr": arguments.lr, "optimizer.weight_decay": 1e-4,
                    "schedule.batch": batch, "schedule.epochs": arguments.epochs, "schedule.warmup": 1,
                    "loader.batch": batch, "loader.workers": 0, "device": "cpu",
                }  # fmt: skip
                folder = arguments.work / f"{norm}-{batch}-{seed}"
                score = top1(
                    folder, "train", arguments.recipe, arguments.data / "train", arguments.data / "test", flags, budget
                )
                if score is not None:
                    errors.setdefault(norm, {}).setdefault(str(batch), []).append(round(1 - score, 4))
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "settings": settings}
    report["complete"] = budget.allows()
    report["error"] = errors
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(errors, indent=1))


if __name__ == "__main__":
    main()
