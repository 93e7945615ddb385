"""Whole folders, more than half of whose files are damaged, through the command line."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

from kills import Forked
from mutants import IMAGES, NON_FILES, VIDEOS, Mutant, population
from trials import Judge

SHARE = 0.6  # of a folder's files
SECONDS = 600


def fill(sources: Path, folder: Path, seed: int, count: int, images: bool) -> list[Mutant]:
    """Damaged files, and whole ones beside them; returns the damaged ones."""
    wanted = [m for m in population(20 * count, seed) if images or m.modality == "video"]
    strange = [m for m in wanted if m.kind in NON_FILES and m.kind != "unreadable"]
    others = [m for m in wanted if m.kind not in NON_FILES]
    mutants = strange + random.Random(seed).sample(others, round(count * SHARE) - len(strange))
    for mutant in mutants:
        mutant.write(sources, folder)
    names = [*VIDEOS, *IMAGES] if images else list(VIDEOS)
    for number in range(count - len(mutants)):
        name = names[number % len(names)]
        shutil.copy(sources / name, folder / f"whole-{number}-{name}")
    return mutants


def judged_folder(sources: Path, folder: Path, seed: int, count: int = 300) -> dict[str, Any]:
    """`unveil data check` finds and names exactly the files that cannot be read to their end."""
    from unveil.data import Manifest

    mutants = fill(sources, folder, seed, count, images=True)
    wrong = []
    status = Forked(["data", "check", str(folder)], folder.with_suffix(".txt")).wait(SECONDS)
    said = folder.with_suffix(".txt").read_text(errors="replace")
    if status != 1 or "Traceback" in said:
        return {"what": "check", "says": "", "wrong": [f"exit status {status}: {said[-2000:]}"]}
    rows = Manifest.load(folder / "manifest.parquet").table.to_pylist()
    listed = {Path(row["path"]).name: row["error"] for row in rows}
    with Judge() as judge:
        for mutant in mutants:
            if mutant.name not in listed:
                wrong.append(f"{mutant.name} is not in the manifest")
                continue
            verdict = judge.verdict(str(folder / mutant.name), mutant.modality)
            refused = "_measure:" in verdict.says or "_image:" in verdict.says
            if refused != (listed[mutant.name] is not None):
                wrong.append(f"{mutant.name}: {verdict.says!r}, in the manifest: {listed[mutant.name]!r}")
    wrong += [f"{name} is whole: {error}" for name, error in listed.items() if name.startswith("whole-") and error]
    bad = sum(error is not None for error in listed.values())
    says = (
        f"`unveil data check` over {len(listed)} files, {len(mutants)} of them damaged: {bad} named with their error."
    )
    return {"what": "check", "says": says, "wrong": wrong}


def trained_folder(sources: Path, folder: Path, seed: int, count: int = 200, steps: int = 60) -> dict[str, Any]:
    """`unveil pretrain --max-bad 1` gets through, names what it passed over, and does the same the next time."""
    mutants = {m.name for m in fill(sources, folder, seed, count, images=False)}
    wrong, losses, bad = [], [], {}
    for workers in (0, 2):
        out = folder.with_name(f"{folder.name}-run-{workers}")
        shutil.rmtree(out, ignore_errors=True)
        flags = {
            "data": folder, "out": out, "size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 2, "seed": seed,
            "device": "cpu", "max-steps": steps, "max-bad": 1, "schedule.batch": 8, "loader.batch": 8,
            "loader.workers": workers,
        }  # fmt: skip
        argv = ["pretrain", "videomae", *(f"--{name}={value}" for name, value in flags.items())]
        status = Forked(argv, out.with_suffix(".txt")).wait(SECONDS)
        if status != 0:
            said = out.with_suffix(".txt").read_text(errors="replace")
            wrong.append(f"{workers} workers: exit status {status}: {said[-2000:]}")
            continue
        losses.append([json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()])
        bad = {e["path"]: e["error"] for e in map(json.loads, (out / "bad.jsonl").read_text().splitlines())}
        wrong += [f"{path} is whole: {error}" for path, error in bad.items() if Path(path).name not in mutants]
        wrong += [f"{path}: {error!r} does not name it" for path, error in bad.items() if path not in error]
    if any(len(found) != steps or not all(map(math.isfinite, found)) for found in losses):
        wrong.append(f"losses {losses}")
    if losses and losses[0] != losses[-1]:
        wrong.append("two runs over the same folder differ")
    says = (
        f"`unveil pretrain --max-bad 1` over {count} videos, {len(mutants)} of them damaged: two runs of {steps} steps, with 0 "
        f"and 2 workers, gave the same losses; {len(bad)} files were named in bad.jsonl and replaced."
    )
    return {"what": "pretrain", "says": says, "wrong": wrong}
