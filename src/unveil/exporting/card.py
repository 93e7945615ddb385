"""A model card: what a run's own files say of its data, recipe, numbers and licence, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.catalogue import entry
from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.exporting.network import Network
    from unveil.run import Run

UNKNOWN = "other"
#: How run.json says that weights have no other owner.
SCRATCH = "(trained from scratch)"
SHOWN = 50


def card(run: Run, network: Network, architecture: str, compared: str) -> str:
    """README.md with the front matter of the Hub.

    Args:
        run: what it is about.
        network: what was exported of it.
        architecture: its class in transformers.
        compared: how it was compared with the run, as a sentence.
    """
    info = run.info
    parts = [
        front_matter(info, network),
        f"# {info['recipe']}",
        _what(info, network, architecture),
        _use(network, architecture),
        _section("Data", _data(info)),
        _section("Training", _training(run)),
        _section("Numbers", _numbers(run)),
        _section("Preprocessing", _table(network.description["preprocessing"])),
        _section("Classes", _classes(network.description["classes"])),
        _section("Licence", _licence(info.get("licence_of_start"))),
        f"This export was {compared}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(info: dict[str, Any], network: Network) -> str:
    """YAML between two lines of dashes: library, task, tags; the licence where one is known by its name."""
    lines = ["library_name: transformers"]
    if network.output == "logits":
        lines.append(f"pipeline_tag: {network.input}-classification")
    elif network.input == "image":
        lines.append("pipeline_tag: image-feature-extraction")
    tags = ["unveil", info["recipe"].partition(":")[0]]
    lines += ["tags:", *(f"- {json.dumps(_plain(tag))}" for tag in tags)]
    licence = info.get("licence_of_start")
    if licence and not licence.endswith(SCRATCH):
        named = re.match(r"(CC-BY(?:-NC|-SA|-ND)*-\d\.\d|Apache-2\.0|MIT|BSD-\d-Clause)\b", licence, re.IGNORECASE)
        lines.append(f"license: {named[1].lower() if named else UNKNOWN}")
    return "\n".join(["---", *lines, "---"])


def _what(info: dict[str, Any], network: Network, architecture: str) -> str:
    kind = "A classifier" if network.output == "logits" else "A network without classes, for features and fine-tuning"
    text = f"{kind}, made with unveil {info['versions']['unveil']} and exported as `{architecture}`."
    try:
        system = entry(info["recipe"].partition(":")[0])
    except (UserError, ValueError):
        return text  # a recipe of the user's own, whose documentation is not bound to any form
    return f"{text} The system is {system.title}. {system.source}. [arXiv:{system.arxiv}](https://arxiv.org/abs/{system.arxiv})"


def _use(network: Network, architecture: str) -> str:
    more = ", add_pooling_layer=False" if architecture == "ViTModel" else ""
    given = f"a list of {network.shape[1]} frames" if len(network.shape) == 4 else "an image"
    return (
        "```python\n"
        f"from transformers import AutoImageProcessor, {architecture}\n\n"
        'processor = AutoImageProcessor.from_pretrained("FOLDER-OR-NAME")\n'
        f'model = {architecture}.from_pretrained("FOLDER-OR-NAME"{more})\n'
        f'inputs = processor({network.input}, return_tensors="pt")  # {given}\n'
        "```"
    )


def _data(info: dict[str, Any]) -> str:
    asked = info.get("asked", {})
    rows: dict[str, Any] = {f"files, {name}": count for name, count in info.get("files", {}).items()}
    if asked.get("data"):
        # Names of folders alone: where they lie is nobody else's business.
        rows["folders"] = ", ".join(sorted({Path(path).name for path in asked["data"]}))
    if asked.get("start"):
        rows["started from"] = Path(asked["start"]).name
    if imported := info.get("imported"):
        rows |= {"imported from": imported["file"], "sha256 of that file": imported["sha256"]}
    return _table(rows)


def _training(run: Run) -> str:
    rows: dict[str, Any] = {"recipe": run.info["recipe"], **run.info["flags"]}
    for name in ("precision", "seed", "status"):
        if run.info.get(name) is not None:
            rows[name] = run.info[name]
    log = run.log()
    if log:
        rows["steps"] = log[-1].get("step")
        for name in dict.fromkeys(
            key for line in log for key in line if key in ("epoch", "loss", "val_top1", "knn", "rankme")
        ):
            rows[f"last {name}"] = next(line[name] for line in reversed(log) if name in line)
    rows["versions"] = ", ".join(
        f"{name} {version}" for name, version in run.info["versions"].items() if name != "platform"
    )
    return _table(rows)


def _numbers(run: Run) -> str:
    """What `unveil evaluate` wrote into the run."""
    rows = []
    for file in sorted((run.path / "evaluate").glob("*.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            metrics = report["metrics"].items()
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not a report
        rows += [f"| {_cell(file.stem)} | {_cell(name)} | {_cell(value)} |" for name, value in metrics]
    if not rows:
        return "None: the run was not evaluated before it was exported (`unveil evaluate`)."
    return "\n".join(["| evaluation | metric | value |", "|---|---|---|", *rows])


def _classes(classes: list[str]) -> str:
    if not classes:
        return ""
    more = f" … and {len(classes) - SHOWN} more, in config.json" if len(classes) > SHOWN else ""
    return ", ".join(f"`{_plain(name)}`" for name in classes[:SHOWN]) + more


def _licence(licence: str | None) -> str:
    if licence and not licence.endswith(SCRATCH):
        return f"Weights that it started from: {_cell(licence)}. What that allows holds for these weights, too."
    return "Trained from scratch, without anybody else's weights. Its owner says how it may be used."


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _table(rows: dict[str, Any]) -> str:
    if not rows:
        return ""
    return "\n".join(["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.4g}"
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return re.sub(r"([\\`<>\[\]|])", r"\\\1", re.sub(r"[\x00-\x1f]", " ", str(value)))


def _plain(text: str) -> str:
    """A name from a file, on one line and without markup: it may be anybody's. In code, where nothing can be escaped."""
    return re.sub(r"[`<>\[\]\x00-\x1f]", " ", text)
