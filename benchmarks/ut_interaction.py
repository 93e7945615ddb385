"""UT-Interaction, 60 clips of six interactions to learn from: small backbones from scratch, and after pre-training on those clips.

    python benchmarks/ut_interaction.py --data /data/ut_interaction --out benchmarks/results/ut_interaction.json

`--data` holds a folder a class of setS_seqNN_*.avi. Trained on set 1 and tested on set 2, and the other way round; three seeds. Every
system has the same clips, epochs, batch and grid of learning rates (factors of its preset's); a rate is chosen on sequences 8 to 10
of the training set, never on the test set, by a run on sequences 1 to 7 with seed 0. VideoMAE is pre-trained on the training set
alone, without labels. The clips are first re-encoded small, for decoding them would cost more than learning from them. Stopped and
started again it goes on; --hours bounds what is begun.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from decode import machine
from scored import Budget, top1

import unveil
from unveil import recipes
from unveil.run import versions
from unveil.verbs.files import prepare

SETS = ("set1", "set2")
HELD_OUT = ("08", "09", "10", "18", "19", "20")
"""Sequences on which a rate is chosen: the last three of a set."""
FACTORS = (0.3, 1.0, 3.0)


class System(NamedTuple):
    """How one of the systems is trained: by a verb, with flags of its own; `lr` is what the factors multiply."""

    verb: str
    recipe: str
    lr: float
    flags: dict[str, Any]


SGD = {"optimizer.kind": "sgd", "optimizer.weight_decay": 1e-4}
VIT = {"size": "nano", "patch": 16, "sample.mixup": 0.0, "sample.cutmix": 0.0, "drop_path": 0.1}
SYSTEMS = {
    "s3d": System("train", "s3d", 0.4, {**SGD, "size": "nano", "precise_bn": 10}),
    "slow": System("train", "slow", 0.4, {**SGD, "width": 8, "precise_bn": 10}),
    "x3d": System("train", "x3d", 0.4, {**SGD, "size": "debug", "precise_bn": 10}),
    "videomae, from scratch": System("train", "videomae", 8e-3, VIT),
    "videomae, pre-trained": System("finetune", "videomae", 8e-3, VIT),
}


def arrange(data: Path, work: Path) -> None:
    """Re-encoded clips, and folders of links to them, a folder a class: work/SET/{all,learn,choose}/CLASS/."""
    small = work / "clips"
    prepare(data, out=small, short_side=128, quiet=True)
    for path in sorted(small.glob("*/set*")):
        match = re.match(r"(set\d)_seq(\d+)_", path.name)
        if match is None:
            raise SystemExit(f"{path}: its name does not say which set and sequence it is of.")
        for part in ("all", "choose" if match[2] in HELD_OUT else "learn"):
            link = work / match[1] / part / path.parent.name / path.name
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("benchmarks/work/ut_interaction"), help="where the runs are kept"
    )
    parser.add_argument("--crop", type=int, default=80)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--pretraining", type=float, default=800, help="epochs of VideoMAE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    parser.add_argument("--hours", type=float, default=4.0, help="no run is begun that would take longer in all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arrange(arguments.data, arguments.work)
    budget = Budget(arguments.hours)
    shared = {
        "frames": arguments.frames, "stride": 8, "crop": arguments.crop, "flip": True, "schedule.epochs": arguments.epochs,
        "schedule.warmup": arguments.epochs / 10, "schedule.batch": 12, "loader.batch": 12, "loader.workers": 0,
        "sample.repeats": 1, "sample.clips": 3, "sample.crops": 1, "device": "cpu",
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name in arguments.systems:
        system = SYSTEMS[name]
        if system.recipe not in recipes.names():
            print(f"{name}: there is no recipe {system.recipe} yet: passed over")
            continue
        for here, there in (SETS, SETS[::-1]):
            home = arguments.work / here
            subject: str | Path = system.recipe
            if system.verb == "finetune":
                pretrained = pretrain(home, system, shared, arguments.pretraining, budget)
                if pretrained is None:
                    continue
                subject = pretrained

            def score(folder: str, train: Path, test: Path, factor: float, seed: int, system: System = system,
                      subject: str | Path = subject, home: Path = home, name: str = name) -> float | None:  # fmt: skip
                flags = {**shared, **system.flags, "optimizer.lr": system.lr * factor, "seed": seed}
                return top1(home / "runs" / name / folder, system.verb, subject, train, test, flags, budget)

            tuned = {
                factor: score(f"choose-{factor:g}", home / "learn", home / "choose", factor, 0)
                for factor in arguments.factors
            }
            if any(value is None for value in tuned.values()):
                continue
            best = max(tuned, key=lambda factor: (tuned[factor], -factor))
            test = arguments.work / there / "all"
            scores = [score(f"{best:g}-{seed}", home / "all", test, best, seed) for seed in range(arguments.seeds)]
            row = found.setdefault(name, {"lr": {}, "chosen on": {}, "top1": {}})
            row["lr"][here] = system.lr * best
            row["chosen on"][here] = {f"{system.lr * factor:g}": value for factor, value in tuned.items()}
            row["top1"][f"{here} → {there}"] = [value for value in scores if value is not None]
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    report |= {
        "settings": shared,
        "pre-training epochs": arguments.pretraining,
        "complete": budget.allows(),
        "systems": found,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def pretrain(home: Path, system: System, shared: dict[str, Any], epochs: float, budget: Budget) -> Path | None:
    """VideoMAE on the clips of a set, without labels; the run, or None when the time is spent."""
    out = home / "runs" / "pretraining"
    if not budget.allows():
        return None
    flags = {
        name: shared[name]
        for name in ("frames", "stride", "crop", "schedule.batch", "loader.batch", "loader.workers", "device")
    }
    flags |= {
        "size": system.flags["size"],
        "patch": system.flags["patch"],
        "schedule.epochs": epochs,
        "schedule.warmup": epochs / 20,
    }
    since = time.monotonic()
    unveil.pretrain("videomae", data=home / "all", out=out, quiet=True, **{**flags, "optimizer.lr": 4.8e-3})
    budget.spend(0.0 if (seconds := time.monotonic() - since) < 10 else seconds)
    return out


if __name__ == "__main__":
    main()
