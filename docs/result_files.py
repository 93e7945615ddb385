"""What the benchmarks left, and a table of it as a page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

PROFILES = {"backbones_profile": "backbones"}
"""Tables of what bounds a measurement, and the files of benchmarks/profiles/ they are made from."""
PARTS = {"steps_saved": "steps", "scaling_exponents": "scaling", "gpu_training": "gpu"}
"""Tables that show a part of another's file."""


def source(name: str) -> Path:
    if name in PROFILES:
        return ROOT / "benchmarks" / "profiles" / f"{PROFILES[name]}.json"
    return ROOT / "benchmarks" / "results" / f"{PARTS.get(name, name)}.json"


def results(name: str) -> dict[str, Any]:
    return json.loads(source(name).read_text())


def table(head: Iterable[str], rows: Iterable[Iterable[Any]], found: dict[str, Any], more: str = "") -> str:
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{found['date']}, {found['machine']}. {more}"
    )
