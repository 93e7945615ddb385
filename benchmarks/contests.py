"""Contests: a network from scratch, next to the same one fine-tuned after pre-training, and linear probes of the frozen encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scored import Budget, measured

import unveil

FACTORS = (0.3, 1.0, 3.0)
Labelled = list[tuple[str, Path]]
"""Class and file."""


class Fold(NamedTuple):
    """A division of the files, as folders of links."""

    name: str
    unlabelled: list[Path]
    learn: Path
    """Labelled files, all that there are."""
    chosen_on: tuple[Path, Path]
    """The same files in two parts: learning rates are tried on the second after training on the first."""
    test: Path


class Contest(NamedTuple):
    """One question, asked of every fold with every seed."""

    recipe: str
    folds: list[Fold]
    pretraining: dict[str, Any]
    shared: dict[str, Any]
    """Flags of both trainings with labels."""
    lr: float
    """What the factors multiply."""
    use: str | None = None
    """Which streams are learned from with labels; all by default."""
    in_turn: bool = False
    """Each seed has one fold, not all."""

    @property
    def chosen(self) -> dict[str, Any]:
        """As a flag of the verbs that learn from labels."""
        return {} if self.use is None else {"use": self.use}


def linked(folder: Path, files: Iterable[tuple[str, Path]]) -> Path:
    """A folder of links, a folder a class."""
    for label, file in files:
        link = folder / label / file.name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return folder


def labelled(folder: Path) -> Labelled:
    return [(file.parent.name, file) for file in sorted(folder.glob("*/*")) if file.is_file()]


def few(files: Labelled, count: int) -> Labelled:
    """The first `count` of each class in an order that has nothing to do with names' meaning: reversed names."""
    kept: dict[str, int] = {}
    chosen = []
    for label, file in sorted(files, key=lambda entry: entry[1].stem[::-1]):
        kept[label] = kept.get(label, 0) + 1
        if kept[label] <= count:
            chosen.append((label, file))
    return chosen


def fold(
    work: Path,
    name: str,
    train: Labelled,
    test: Labelled,
    labels: int | None = None,
    held_out: Callable[[Path, int], bool] | None = None,
    beside: Sequence[Path] = (),
) -> Fold:
    """Divide files.

    Args:
        work: where the links are put.
        name: of the fold.
        train, test: class and file.
        labels: how many files of each class of `train` have labels; all by default.
        held_out: (file, its number in its class) → whether rates are chosen on it; every fourth by default.
        beside: more unlabelled folders.
    """
    here = work / "files" / name
    known = train if labels is None else few(train, labels)
    number: dict[str, int] = {}
    parts: tuple[Labelled, Labelled] = ([], [])
    for label, file in known:
        number[label] = number.get(label, 0) + 1
        parts[held_out(file, number[label]) if held_out else number[label] % 4 == 0].append((label, file))
    return Fold(
        name,
        [linked(here / "unlabelled", train), *beside],
        linked(here / "learn", known),
        (linked(here / "choose" / "learn", parts[0]), linked(here / "choose" / "test", parts[1])),
        linked(here / "test", test),
    )


def held(contest: Contest, work: Path, name: str, seeds: int, budget: Budget) -> dict[str, list[float]]:
    """Every number of a contest, a list over folds and seeds of each."""
    found: dict[str, list[float]] = {}

    def add(row: dict[str, float] | None, names: dict[str, str]) -> None:
        for key, told in names.items():
            if row is not None and key in row:
                found.setdefault(told, []).append(row[key])

    rates: dict[str, float] = {}
    for seed in range(seeds):
        for one in contest.folds[seed % len(contest.folds) :][:1] if contest.in_turn else contest.folds:
            here = work / "runs" / one.name
            pretrained = here / f"pretraining-{seed}"
            if not pretrain(contest, one, pretrained, seed, budget):
                continue
            for side, subject in (("scratch", contest.recipe), ("finetuned", pretrained / "run")):
                if side not in rates:
                    tried = {
                        factor: trained(contest, here / name / f"choose-{side}-{factor:g}", subject, *one.chosen_on,
                                        factor, seed, budget)
                        for factor in FACTORS
                    }  # fmt: skip
                    if any(row is None for row in tried.values()):
                        continue
                    rates[side] = max(tried, key=lambda factor: ((tried[factor] or {})["top1"], -factor))
                    found.setdefault(f"{side}, rate", []).append(contest.lr * rates[side])
                out = here / name / f"{side}-{seed}"
                row = trained(contest, out, subject, one.learn, one.test, rates[side], seed, budget)
                add(row, {"top1": side})
            for side in ("untrained", "pretrained"):
                run = pretrained / ("run" if side == "pretrained" else "untrained")
                out = here / name / f"probe-{side}-{seed}"
                add(probed(contest, out, run, one, seed, budget), {"top1": f"probe, {side}"})
            add(json.loads((pretrained / "score.json").read_text()), {"rankme": "rankme", "seconds": "seconds"})
    return found


def pretrain(contest: Contest, one: Fold, out: Path, seed: int, budget: Budget) -> bool:
    """A run, and one as it was initialised; False when the time is spent."""

    def work() -> dict[str, float]:
        shared = {"data": one.unlabelled, "seed": seed, "val_fraction": 0.0, "quiet": True, "device": "cpu"}
        unveil.pretrain(contest.recipe, out=out / "untrained", max_steps=0, **shared, **contest.pretraining)
        unveil.pretrain(contest.recipe, out=out / "run", **shared, **contest.pretraining)
        log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
        shutil.rmtree(out / "run" / "checkpoints", ignore_errors=True)
        return {"rankme": next(round(line["rankme"], 2) for line in reversed(log) if "rankme" in line)}

    return measured(out / "score.json", work, budget) is not None


def trained(
    contest: Contest, out: Path, subject: str | Path, train: Path, test: Path, factor: float, seed: int, budget: Budget
) -> dict[str, float] | None:
    """Top-1 on `test` after learning the labels of `train`."""

    def work() -> dict[str, float]:
        flags = {**contest.shared, **contest.chosen, "optimizer.lr": contest.lr * factor, "seed": seed, "device": "cpu"}
        how: dict[str, Any] = {"data": train, "out": out / "run", "val_fraction": 0.0, "quiet": True, **flags}
        run = unveil.train(subject, **how) if isinstance(subject, str) else unveil.finetune(subject, **how)
        report = unveil.evaluate(run, data=test, out=out / "evaluate", workers=0, quiet=True)
        shutil.rmtree(out / "run" / "checkpoints", ignore_errors=True)
        return {"top1": round(report.metrics["top1"], 4)}

    return measured(out / "score.json", work, budget)


def probed(contest: Contest, out: Path, run: Path, one: Fold, seed: int, budget: Budget) -> dict[str, float] | None:
    def work() -> dict[str, float]:
        report = unveil.evaluate(
            run, data=one.learn, test=one.test, by="linear", out=out / "evaluate", workers=0, seed=seed, quiet=True,
            **contest.chosen,
        )  # fmt: skip
        return {"top1": round(report.metrics["top1"], 4)}

    return measured(out / "score.json", work, budget)


def steps(epochs: float, batch: int, **more: Any) -> dict[str, Any]:
    """Flags of how long and in what portions a run learns."""
    return {
        "schedule.epochs": epochs,
        "schedule.warmup": epochs / 10,
        "schedule.batch": batch,
        "loader.batch": batch,
        "loader.workers": 0,
        **more,
    }
