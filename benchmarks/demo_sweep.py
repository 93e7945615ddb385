"""Choose the demo's learning rates: the same grid for both sides, on validation clips that are neither trained nor tested on.

    python benchmarks/demo_sweep.py --demo demo --out benchmarks/results/demo_sweep.json

Takes the pre-trained run and the labelled clips of a finished demo; makes 400 validation clips from another seed (their digits
are those of the labelled clips' pool, never those of the test clips).
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

import unveil
from unveil import verbs
from unveil.run import versions

RATES = (0.5e-3, 1e-3, 2e-3, 4e-3)


def main(demo: Path, out: Path, work: Path, seeds: int) -> None:
    verbs.builtin("moving-digits", out=work / "validation", unlabelled=1, labelled=400, test=1, seed=1)
    rows = []
    for rate in RATES:
        scores: dict[str, list[float]] = {"scratch": [], "finetuned": []}
        for seed in range(seeds):
            # A rate is given per 256 samples; the preset's batch is 16.
            flags = {"data": demo / "clips" / "labelled", "preset": "demo", "seed": seed, "val_fraction": 0.0}
            flags |= {"quiet": True, "overwrite": True, "optimizer.lr": rate * 256 / 16}
            runs = {
                "scratch": unveil.train("videomae", out=work / "scratch", **flags),
                "finetuned": unveil.finetune(demo / "pretrained-0", out=work / "finetuned", **flags),
            }
            for name, run in runs.items():
                report = unveil.evaluate(run, data=work / "validation" / "labelled", out=work / "scores", quiet=True)
                scores[name].append(report.metrics["top1"])
        rows.append({"lr": rate, **scores})
        print(rate, {name: f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" for name, v in scores.items()}, flush=True)
    result = {
        "what": "top-1 on 400 validation clips, by learning rate",
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "versions": versions(),
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/demo_sweep.json"))
    parser.add_argument("--work", type=Path, default=Path("demo/sweep"))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    main(given.demo, given.out, given.work, given.seeds)
