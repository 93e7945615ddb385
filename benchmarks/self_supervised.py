"""What encoders know after pre-training without labels, next to untrained ones; and CLIP next to FLIP at equal wall-clock.

    python benchmarks/self_supervised.py cifar10 --data /data/cifar10
    python benchmarks/self_supervised.py ut_interaction --data /data/ut_interaction
    python benchmarks/self_supervised.py flickr8k --data /data/flickr8k_1000

Each writes benchmarks/results/self_supervised_NAME.json. Every system of a data set sees the same samples, in the same batches, for
the same number of epochs, at a size of its network of which a step costs a fraction of a second; rates are those of its preset
`small`, nothing is tuned. kNN and a linear probe of the frozen encoder's mean features learn from the training labels. CLIP and FLIP
take as many steps as each has time for: their speeds are measured first, in turn. Stopped and started again all of it goes on;
--hours bounds what is begun.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from decode import machine
from scored import Budget, measured
from ut_interaction import SETS, arrange

import unveil
from unveil.run import versions
from unveil.verbs.files import prepare


class System(NamedTuple):
    """A recipe with its flags, and what is trained before it, whose run it takes by a flag."""

    recipe: str
    flags: dict[str, Any]
    before: tuple[str, str, dict[str, Any]] | None = None
    """(flag, recipe, flags of that)."""
    steps: int | None = None
    """0: as initialised."""


PLAIN = {"size": "nano", "crop": 32, "patch": 8}
RESIDUAL = {"size": "18", "width": 32, "crop": 32}
MOCO = {"queue": 2048, "mlp": True, "temperature": 0.2, "augment": "v2", "momentum": 0.99, "optimizer.lr": 0.06}
V3 = {"hidden": 512, "optimizer.lr": 2e-3, "smallest_crop": 0.2}
CIFAR10 = {
    "untrained ViT": System("mocov3", {**PLAIN, **V3}, steps=0),
    "untrained ResNet-18": System("simsiam", RESIDUAL, steps=0),
    "maskfeat, ViT": System("maskfeat", {**PLAIN, "cell": 4, "optimizer.lr": 4e-3}),
    "mocov3, ViT": System("mocov3", {**PLAIN, **V3}),
    "moco, ResNet-18": System("moco", {**RESIDUAL, **MOCO}),
    "simsiam, ResNet-18": System("simsiam", {**RESIDUAL, "optimizer.lr": 0.06}),
    "beit, ViT": System(
        "beit",
        {**PLAIN, "optimizer.lr": 4e-3},
        (
            "tokenizer",
            "dvae",
            {
                "size": "nano",
                "vocab": 256,
                "crop": 32,
                "cooling": 1.0,
                "beta": 1.0,
                "beta_growth": 0.5,
                "optimizer.lr": 8e-3,
            },
        ),
    ),
}
CLIP_OF = {"frames": 8, "stride": 8, "crop": 64}
SLOW = {**CLIP_OF, "size": "2,2,2,2", "width": 16}
UT = {
    "untrained ViT": System("mocov3", {**CLIP_OF, **V3, "size": "nano"}, steps=0),
    "untrained Slow": System("simsiam", SLOW, steps=0),
    "untrained MViTv2": System("maskfeat", {**CLIP_OF, "size": "nano"}, steps=0),
    "maskfeat, MViTv2": System("maskfeat", {**CLIP_OF, "size": "nano", "optimizer.lr": 8e-3}),
    "mocov3, ViT": System("mocov3", {**CLIP_OF, **V3, "size": "nano"}),
    "moco, Slow": System("moco", {**SLOW, **MOCO, "queue": 512}),
    "simsiam, Slow": System("simsiam", {**SLOW, "optimizer.lr": 0.06}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("cifar10", "ut_interaction", "flickr8k"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the JSON file")
    parser.add_argument(
        "--work", type=Path, default=Path("benchmarks/work/self_supervised"), help="where runs are kept"
    )
    parser.add_argument("--epochs", type=float, help="of pre-training; 6, of UT-Interaction 40, unless given")
    parser.add_argument("--seconds", type=float, default=240, help="of each pre-training of CLIP and FLIP")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0, help="no run is begun that would take longer in all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, budget = arguments.work / arguments.what, Budget(arguments.hours)
    if arguments.what == "flickr8k":
        settings, found = flickr8k(arguments.data, work, arguments.seconds, arguments.seeds, budget)
    else:
        epochs = arguments.epochs or {"cifar10": 6, "ut_interaction": 40}[arguments.what]
        batch = {"cifar10": 64, "ut_interaction": 12}[arguments.what]
        shared = {
            "schedule.epochs": epochs, "schedule.warmup": epochs / 10, "schedule.batch": batch, "loader.batch": batch,
            "loader.workers": 0, "device": "cpu",
        }  # fmt: skip
        systems, pairs = (CIFAR10, {"": (arguments.data / "train", arguments.data / "test")})
        if arguments.what == "ut_interaction":
            arrange(arguments.data, work)
            systems = UT
            pairs = {f"{a} → {b}": (work / a / "all", work / b / "all") for a, b in (SETS, SETS[::-1])}
        settings, found = shared, {}
        for seed in range(arguments.seeds):
            for name, system in systems.items():
                for pair, (train, test) in pairs.items():
                    row = probed(work / "runs" / f"{name} {pair} {seed}".replace(" → ", "-"), system, train, test, seed,
                                 shared, budget)  # fmt: skip
                    for number, value in (row or {}).items():
                        found.setdefault(name, {}).setdefault(number, []).append(value)
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "settings": settings}
    report |= {"complete": budget.allows(), "systems": found}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"self_supervised_{arguments.what}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def probed(
    folder: Path, system: System, train: Path, test: Path, seed: int, shared: dict[str, Any], budget: Budget
) -> dict[str, float] | None:
    """kNN and linear top-1 of a system pre-trained on `train`, seconds, and RankMe at the end; None when the time is spent."""

    def work() -> dict[str, float]:
        flags, began = dict(system.flags), time.monotonic()
        if system.before is not None:
            flag, recipe, own = system.before
            flags[flag] = str(folder / recipe)
            unveil.train(
                recipe, data=train, out=folder / recipe, seed=seed, val_fraction=0.0, quiet=True, **shared, **own
            )
        steps = {} if system.steps is None else {"max_steps": system.steps}
        run = unveil.pretrain(
            system.recipe,
            data=train,
            out=folder / "run",
            seed=seed,
            val_fraction=0.0,
            quiet=True,
            **shared,
            **flags,
            **steps,
        )
        row = {"seconds": round(time.monotonic() - began, 1)}
        for by in ("knn", "linear"):
            scored = unveil.evaluate(run, data=train, test=test, by=by, out=folder / by, workers=0, quiet=True)
            row[by] = round(scored.metrics["top1"], 4)
        if system.steps != 0:
            log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
            row["rankme"] = next(round(line["rankme"], 2) for line in reversed(log) if "rankme" in line)
        return row

    return measured(folder / "score.json", work, budget)


TOWERS = {
    "size": "128x4x4", "text_size": "128x4x4", "width": 128, "crop": 96, "patch": 12, "context": 32, "vocabulary": 4096,
    "optimizer.lr": 2e-3, "optimizer.weight_decay": 0.1, "schedule.batch": 64, "loader.batch": 64, "loader.workers": 0,
    "device": "cpu",
}  # fmt: skip
TWO_TOWERS = {"clip": ("flip", {**TOWERS, "ratio": 0.0}), "flip": ("flip", {**TOWERS, "ratio": 0.5})}
"""CLIP is FLIP at ratio 0: then nothing differs but the masks."""
TRIED = 25


def flickr8k(
    data: Path, work: Path, seconds: float, seeds: int, budget: Budget
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Retrieval on the last 200 images by name, after as many steps on the others as fit into the same time."""
    small = work / "images"
    prepare(data, out=small, short_side=128, quiet=True)
    with (data / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next(iter(rows[0]))
    names = sorted({row[column] for row in rows})
    tested = set(names[-200:])
    lists = {}
    for part in ("train", "test"):
        lists[part] = small / f"{part}.csv"
        with lists[part].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "caption"])
            for row in rows:
                if (row[column] in tested) == (part == "test"):
                    writer.writerow(list(row.values())[:2])

    def pace(name: str, number: int) -> float | None:
        """Median seconds of a step in a run of a few."""
        recipe, flags = TWO_TOWERS[name]

        def work_() -> dict[str, float]:
            out = work / "pace" / f"{name}-{number}"
            run = unveil.pretrain(
                recipe, data=lists["train"], out=out, quiet=True, max_steps=TRIED, val_fraction=0.0, **flags
            )
            log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
            return {"step": median(flags["schedule.batch"] / line["samples_per_s"] for line in log[5:])}

        found = measured(work / "pace" / f"{name}-{number}.json", work_, budget)
        return None if found is None else found["step"]

    paces = [(name, pace(name, number)) for number in range(3) for name in TWO_TOWERS]
    found: dict[str, Any] = {}
    for seed in range(seeds):
        for name, (recipe, flags) in TWO_TOWERS.items():
            own = [value for other, value in paces if other == name and value is not None]
            counts = {name: round(seconds / median(own))} if own else {}
            for label, count in (counts | ({"untrained": 0} if name == "clip" else {})).items():

                def trained(count: int = count, label: str = label, recipe: str = recipe, flags: dict[str, Any] = flags,
                            seed: int = seed) -> dict[str, float]:  # fmt: skip
                    began = time.monotonic()
                    out = work / "runs" / f"{label}-{seed}"
                    schedule = {"schedule.epochs": 1000, "schedule.warmup": 50}  # of which --max-steps makes its own
                    run = unveil.pretrain(
                        recipe, data=lists["train"], out=out / "run", quiet=True, max_steps=count, seed=seed,
                        val_fraction=0.0, **flags, **schedule,
                    )  # fmt: skip
                    spent = time.monotonic() - began
                    scored = unveil.evaluate(
                        run, data=lists["test"], by="retrieval", out=out / "evaluate", workers=0, quiet=True
                    )
                    return {"seconds": round(spent, 1), "steps": count, **scored.metrics}

                row = measured(work / "runs" / f"{label}-{seed}" / "score.json", trained, budget)
                for number, value in (row or {}).items():
                    found.setdefault(label, {}).setdefault(number, []).append(value)
    paced = {name: [value for other, value in paces if other == name] for name in TWO_TOWERS}
    return {**TOWERS, "seconds": seconds, "seconds of a step": paced}, found


if __name__ == "__main__":
    main()
