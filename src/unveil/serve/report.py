"""A run folder → one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unveil.errors import UserError
from unveil.flags import build
from unveil.serve import samples
from unveil.serve.collapse import collapse
from unveil.serve.curves import charts, number, points
from unveil.serve.pages import write_page

if TYPE_CHECKING:
    from unveil.recipe import Recipe
    from unveil.run import Run

MOST_BAD = 200
MOST_KINDS = 12


def report(run: Run, out: Path | str | None = None) -> Path:
    """Write a page about a run: settings, curves, reconstructions, neighbours, answers, evaluations, bad files, versions.

    It loads nothing from a network and runs no script. What cannot be shown (no log yet, data that moved) is said in its place.

    Args:
        run: of any kind.
        out: the file to write; `report.html` in the run folder when None.

    Returns:
        The file written.

    Raises:
        UserError: `out` is a folder.
    """
    path = run.path / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file, e.g. {path / 'report.html'}")
    log = run.log()
    bad = run.bad_files()
    sections = {**_pictures(run), "charts": charts(log), "evaluations": evaluations(run.path / "evaluate")}
    write_page(
        path,
        "report.html.j2",
        title=run.path.absolute().name,
        recipe=run.info["recipe"],
        verb=run.info["verb"],
        status=run.info["status"],
        created=run.info["created"],
        written=time.strftime("%Y-%m-%d %H:%M"),
        command=_command(run.info.get("command")),
        facts=_facts(run, log, bad),
        stopped=_stopped(run, log),
        collapsed=collapse(log, _recipe(run).loader.batch),
        bad=_bad(run, bad),
        # A page elsewhere cannot point there: it is to be whole in itself.
        bad_link=path.absolute().parent == run.path.absolute(),
        settings=_settings(run),
        versions=run.info["versions"],
        **sections,
    )
    return path


def _pictures(run: Run) -> dict[str, Any]:
    """The sections that need the network and the data, and a sentence (`missing`) where there are none to show."""
    found: dict[str, Any] = {
        "strips": [],
        "shows": "",
        "neighbours": [],
        "gallery": 0,
        "codebook": None,
        "answers": [],
        "answers_held_out": False,
        "missing": "",
    }
    try:
        manifest, held_out = samples.manifest_of(run), samples.manifest_of(run, validation=True)
        run.recipe  # noqa: B018 (weights that are missing are found out here)
    except UserError as error:
        return {**found, "missing": str(error)}
    if manifest is None or not len(manifest):
        return {**found, "missing": "The run folder holds no manifest.parquet: there are no samples to show."}
    unreadable = []
    if getattr(run.objective, "drawable", False):
        found["strips"], unreadable = samples.reconstructions(run, held_out or manifest)
        found["shows"] = run.objective.shows
    if hasattr(run.objective, "codes"):
        found["codebook"] = samples.code_use(run, held_out or manifest)
    if hasattr(run.objective, "logits"):
        found["answers"], found["answers_held_out"] = samples.answers(run, held_out or manifest), bool(held_out)
        unreadable = [card for card in found["answers"] if card["error"]]
    found["neighbours"], found["gallery"] = samples.neighbours(run, manifest)
    if not found["gallery"]:
        first = manifest.row(0).path
        found["missing"] = (
            f"None of the run's files that were tried can be read (for instance {first}): did the data move?"
        )
        found["answers"] = []
    elif unreadable:
        found["missing"] = f"{len(unreadable)} of the files chosen for pictures cannot be read."
    return found


def _facts(run: Run, log: list[dict[str, Any]], bad: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The numbers that come first."""
    info = run.info
    facts = []
    if log:
        steps, total = int(log[-1]["step"]), info.get("total_steps")
        facts.append(("steps", f"{steps:,} of {total:,}" if total and total != steps else f"{steps:,}"))
        for key, name, percent in (
            ("loss", "loss", False),
            ("val_top1", "validation top-1", True),
            ("val_map", "validation mAP", True),
            ("knn", "kNN accuracy", True),
            ("rankme", "RankMe", False),
            ("perplexity", "perplexity of codes", False),
            ("feature_std", "spread of features", False),
        ):
            line = points(log, key)
            if line:
                facts.append((name, f"{line[-1][1]:.1f}" if key == "rankme" else number(line[-1][1], percent)))
        waits = points(log, "data_wait")
        if waits:
            facts.append(("waiting for data", number(sum(y for _, y in waits) / len(waits), True)))
    if info.get("files", {}).get("train"):
        facts.append(("files", f"{info['files']['train']:,}"))
    if info.get("classes"):
        facts.append(("classes", str(len(info["classes"]))))
    if bad:
        facts.append(("bad files", f"{len(bad):,}{_share(run, len(bad))}"))
    return facts


def _share(run: Run, bad: int) -> str:
    """ " (2.5 %)" of all files the run was given; "" where the run folder does not say how many these were."""
    total = sum(run.info.get("files", {}).values())
    return f" ({100 * bad / max(total, bad):.1f} %)" if total else ""


def _bad(run: Run, bad: list[dict[str, Any]]) -> dict[str, Any]:
    """The bad files: how many, their share, how often each kind of error, and the first of them."""
    kinds = Counter(error_kind(str(line.get("error", "")), str(line.get("path", ""))) for line in bad)
    return {
        "count": len(bad),
        "share": _share(run, len(bad)),
        "kinds": kinds.most_common(MOST_KINDS),
        "other_kinds": sum(count for _, count in kinds.most_common()[MOST_KINDS:]),
        "files": bad[:MOST_BAD],
        "path": str(run.path / "bad.jsonl"),
    }


def error_kind(error: str, path: str) -> str:
    """An error without what is particular to the file: its name and its numbers."""
    for name in (path, Path(path).name):
        error = error.replace(name, "") if name else error
    line = re.sub(r"0x[0-9a-f]+|\d[\d.,]*", "…", error.strip().partition("\n")[0])
    return re.sub(r"\s+", " ", line).strip(" :;,")[:160] or "unknown"


def _stopped(run: Run, log: list[dict[str, Any]]) -> str:
    """A sentence about a loss that was not finite, where that is why the run ends where it does."""
    try:
        info = json.loads((run.path / "nan" / "rank-0.json").read_text(encoding="utf-8"))
        step, loss, norm = int(info["step"]), str(info["loss"]), str(info["gradient_norm"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if log and log[-1]["step"] >= step:
        return ""
    return (
        f"Stopped before step {step:,}: the loss was {loss}, the gradient's norm {norm}. See: unveil doctor {run.path}"
    )


def _recipe(run: Run) -> Recipe:
    """Without the weights, which may be missing."""
    with torch.device("meta"):
        return build(run.info["recipe"], **run.info["flags"])


def _settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) as text: what was asked, and every value that the recipe filled in."""
    info = run.info
    asked = info.get("asked", {})
    recipe = _recipe(run)
    count = {name: sum(p.numel() for p in tower.parameters()) for name, tower in recipe.objective.towers.items()}  # pyright: ignore
    groups = {
        "Recipe": {
            "recipe": info["recipe"],
            **{k: v for k, v in info["flags"].items() if "." not in k},
            **{f.name: getattr(recipe, f.name) for f in fields(recipe) if f.type in ("int", "float", "bool", "str")},
            **{f"parameters ({name} encoder)": f"{n:,}" for name, n in count.items()},
        },
        "Optimizer": asdict(recipe.optimizer),
        "Schedule": asdict(recipe.schedule),
        "Loader": asdict(recipe.loader),
        "Preprocessing": info.get("preprocessing", {}),
        "Run": {
            **{k: v for k, v in asked.items() if k not in ("recipe", "flags")},
            **{f"imported {key}": value for key, value in info.get("imported", {}).items()},
            "licence of the start weights": info.get("licence_of_start"),
            "hash of the data": info.get("data_hash"),
        },
    }
    shown = {name: [(k, _text(v)) for k, v in values.items() if v not in (None, "")] for name, values in groups.items()}
    return [(name, values) for name, values in shown.items() if values]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return (
            "\n".join(map(str, value)) if any(isinstance(v, str) for v in value) else ", ".join(map(str, value)) or "–"
        )
    return str(value)


def _command(argv: list[str] | None) -> str:
    return shlex.join(["unveil", *argv]) if argv else ""


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """What `Report.save` wrote into a folder, the newest first: the JSON's content and "picture", a data URI or ""."""
    found = []
    for file in sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            entry = {key: result[key] for key in ("name", "metrics", "settings", "per_class", "classes")}
        except (ValueError, KeyError, TypeError):
            continue  # somebody else's file
        measure = "average_precision" if "map" in entry["metrics"] else "accuracy"
        rows = [(row["class"], row[measure], row["samples"]) for row in entry["per_class"]]
        entry["rows"] = sorted(rows, key=lambda row: (row[1] is None, row[1] or 0.0))
        entry["measure"] = measure.replace("_", " ")
        picture = file.with_suffix(".png")
        entry["picture"] = ""
        if picture.is_file():
            entry["picture"] = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
        found.append(entry)
    return found
