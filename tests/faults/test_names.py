"""Names of files and classes that break what builds on names: quotes, markup, newlines, emoji, no UTF-8, very long ones."""

from __future__ import annotations

import csv
import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unveil
from unveil import verbs

STRANGE = [
    "plain",
    "new\nline",
    "two  spaces and\ttab",
    "quo'te\"s",
    "com,ma; semi",
    "<script>alert(1)</script>",
    "a&amp;b",
    "=cmd|calc",
    "-rf",
    "100%s{0}$HOME",
    "[bold]markup[",
    "🎬 é 日本 \u202eright-to-left",
    "\u2028line separator",
    "x" * 240,
    os.fsdecode(b"no utf-8 \xff\xfe"),
    "dots..",
    "back\\slash",
    "trailing space ",
]
STRANGE = [name.replace("</script>", "<\u2215script>") for name in STRANGE]  # a slash cannot stand in a name
FLAGS = {"size": "debug", "crop": 32, "patch": 8, "loader.workers": 0, "schedule.batch": 8, "loader.batch": 8}


def write_image(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path, format="png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes with every strange name in both, whole and broken files."""
    root = tmp_path_factory.mktemp("data")
    for number, label in enumerate(("<img src=x onerror=alert(1)>", "plain 'class\"")):
        (root / label).mkdir()
        for place, name in enumerate(STRANGE):
            write_image(root / label / f"{name}.png", 100 * number + place)
            (root / label / f"{name}.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vit"
    return unveil.train("vit", data=folder, out=out, max_steps=8, max_bad=1.0, val_fraction=0.2, **FLAGS)


class Page(html.parser.HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def check_page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == text.count("<script")
    assert "alert(1)" not in "".join(re.findall(r"<script.*?</script>", text, re.DOTALL))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [
        value for name, value in page.attributes if name in ("src", "href") and (value or "").startswith("http")
    ]
    return page


def test_training_names_what_it_passed_over(run, folder):
    bad = {entry["path"] for entry in run.bad_files()}
    assert bad
    # A manifest holds UTF-8: a name that is none is escaped, and its file, which is not found under it, is a bad one.
    broken = {escaped(path) for path in folder.rglob("*.*") if path.suffix == ".jpg" or "no utf-8" in path.name}
    assert bad <= broken
    assert len(bad) > len(STRANGE)
    assert all(json.loads(line) for line in (run.path / "bad.jsonl").read_text(encoding="utf-8").split("\n") if line)


def escaped(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_predictions_hold_every_name(run, folder, tmp_path, suffix):
    out = tmp_path / f"answers.{suffix}"
    rows = verbs.predict(run, folder, out=out, quiet=True)
    assert {row["path"] for row in rows} == {str(path) for path in folder.rglob("*.*") if path.is_file()}
    assert sum("error" in row for row in rows) == 2 * len(STRANGE)
    text = out.read_text(encoding="utf-8")
    if suffix == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
    else:
        read = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.split("\n") if line]
    # The file is written with the surrogates of a name that is no UTF-8 escaped; a JSON reader puts them back.
    names = {row["path"].encode("utf-8", "surrogateescape") for row in rows}
    assert len(read) == len(rows)
    assert sum(row["path"].encode("utf-8", "surrogateescape") in names for row in read) >= len(rows) - 4


def test_the_report_shows_names_as_text(run):
    page = check_page(verbs.report(run, quiet=True))
    assert "alert(1)" in page.text


def test_evaluation_embedding_and_search(run, folder, tmp_path):
    report = verbs.evaluate(run, data=folder, out=tmp_path / "evaluate", workers=0, quiet=True)
    assert report.metrics["samples"] == 2 * (len(STRANGE) - 1)
    assert len(report.bad) == 2 * (len(STRANGE) + 1)
    index = verbs.embed(run, data=folder, out=tmp_path / "index", quiet=True)
    assert json.loads((index / "index.json").read_text(encoding="utf-8"))["count"] == 2 * len(STRANGE)
    query = next(folder.rglob("<script>*.png"))
    hits = verbs.search(index, query, top=2 * len(STRANGE), html=tmp_path / "page.html", quiet=True)
    assert len(hits) == 2 * len(STRANGE)
    page = check_page(tmp_path / "page.html")
    assert "alert(1)" in page.text


def test_data_check_and_the_command_line(folder, run, tmp_path):
    """Also on a terminal that knows no letter of theirs."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    checked = subprocess.run(
        [sys.executable, "-m", "unveil.cli", "data", "check", folder, "--out", folder.parent / f"{folder.name}.parquet"],
        capture_output=True, env=environment, timeout=120,
    )  # fmt: skip
    assert checked.returncode == 1, checked.stderr.decode(errors="replace")
    assert b"Traceback" not in checked.stderr
    predicted = subprocess.run(
        [sys.executable, "-m", "unveil.cli", "predict", run.path, folder],
        capture_output=True,
        env=environment,
        timeout=120,
    )
    assert predicted.returncode == 0, predicted.stderr.decode(errors="replace")
