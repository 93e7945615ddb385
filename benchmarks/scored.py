"""Runs that are trained once and scored once, however often a benchmark is stopped and started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import unveil


class Budget:
    """Seconds that may be spent; no new run is begun when the longest so far would not fit."""

    def __init__(self, hours: float):
        self.left, self.longest = hours * 3600, 0.0

    def allows(self) -> bool:
        return self.left > self.longest

    def spend(self, seconds: float) -> None:
        self.left -= seconds
        self.longest = max(self.longest, seconds)


def top1(
    out: Path, verb: str, subject: str | Path, train: Path, test: Path, flags: Mapping[str, Any], budget: Budget
) -> float | None:
    """Top-1 on `test` of a run trained on `train`: what is known of it already, or trained (on) and measured now.

    Args:
        out: the run folder.
        verb: "train" or "finetune".
        subject: a recipe, or a run.
        train, test: labelled folders.
        flags: of the verb.
        budget: of time; None is returned when it is spent.
    """

    def work() -> dict[str, float]:
        run = getattr(unveil, verb)(subject, data=train, out=out / "run", val_fraction=0.0, quiet=True, **flags)
        workers = flags.get("loader.workers", -1)
        report = unveil.evaluate(run, data=test, out=out / "evaluate", workers=workers, quiet=True)
        return {"top1": report.metrics["top1"]}

    found = measured(out / "score.json", work, budget)
    return None if found is None else found["top1"]


def measured(kept: Path, work: Callable[[], dict[str, float]], budget: Budget) -> dict[str, float] | None:
    """What `work` gives: read where it is kept, or found out now and kept; None when the time is spent."""
    if kept.exists():
        return json.loads(kept.read_text())
    if not budget.allows():
        return None
    since = time.monotonic()
    found = work()
    seconds = time.monotonic() - since
    budget.spend(seconds)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"seconds": round(seconds, 1), **found}) + "\n")
    told = ", ".join(f"{name} {value:g}" for name, value in found.items())
    print(f"{kept.parent}: {told} in {seconds:.0f} s", flush=True)
    return found
