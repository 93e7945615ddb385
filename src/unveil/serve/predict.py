"""Files → classes, a row for every window, as a stream."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import torch

from unveil.data.streams import filling
from unveil.data.workers import ANSWERING, reporting_workers
from unveil.errors import UserError
from unveil.evaluation.accuracy import classifier_key
from unveil.evaluation.report import cell
from unveil.precision import lowered
from unveil.serve.windows import BadFile, clock, stream
from unveil.storage import replacing

if TYPE_CHECKING:
    from unveil.run import Run


def predict(
    run: Run,
    paths: Sequence[Path | str],
    top: int = 5,
    hop: float | None = None,
    batch: int = 8,
    missing: Literal["drop", "blank"] | None = None,
    workers: int = 0,
    precision: str = "32",
) -> Iterator[dict[str, Any]]:
    """Classes of files and folders: one row for each window of a video, one for an image.

    Args:
        run: a classifier: fine-tuned, or trained with labels.
        paths: files and folders (searched through).
        top: best classes in a row; at most all.
        hop: seconds between windows; None for windows that touch.
        batch: windows through the network at once.
        missing: what becomes of clips without a sound track; None for what the run's recipe says.
        workers: processes that read ahead of the network; -1 for one per core, less one.
        precision: "32" or "bf16", in which the network computes.

    Yields:
        Rows with `path`, `start`, `end` (seconds; None for images) and `top`, a list of (class, probability), best first;
        a file that cannot be read gives `path` and `error`, and the rest goes on.

    Raises:
        UserError: the run has no classes, or a path is not there.
    """
    if top < 1:
        raise UserError(f"--top {top}: at least 1")
    classifier_key(run.objective)
    multi_label = bool(run.info["flags"].get("multi_label"))
    classes = run.trained_classes()
    top = min(top, len(classes))
    data = run.recipe.data if missing is None else filling(run.recipe.data, missing)
    with reporting_workers(ANSWERING):
        for item in stream(data, paths, hop, batch, workers):
            if isinstance(item, BadFile):
                yield {"path": item.path, "error": item.error}
                continue
            for part in item.parts(run.device):
                with torch.inference_mode(), lowered(run.device, precision, run.recipe.precision):
                    logits = run.objective.logits(part.on(run.device, data)).float()  # pyright: ignore[reportCallIssue]
                    best, which = (logits.sigmoid() if multi_label else logits.softmax(1)).topk(top, dim=1)
                for window, p, c in zip(part.windows, best.tolist(), which.tolist(), strict=True):
                    answer = [(classes[i], probability) for i, probability in zip(c, p, strict=True)]
                    yield {"path": window.path, "start": window.start, "end": window.end, "top": answer}


def write_rows(rows: Iterable[dict[str, Any]], path: Path | str) -> None:
    """Write rows of `predict` as JSON lines, JSON or CSV, by the suffix.

    Rows go to the disk as they come; the file is there only when all of them are.

    Args:
        rows: may be the generator itself.
        path: ends in .jsonl, .json or .csv.

    Raises:
        UserError: another suffix.
    """
    path = Path(path)
    write = {".jsonl": _write_lines, ".json": _write_json, ".csv": _write_csv}.get(path.suffix.lower())
    if write is None:
        raise UserError(f"--out {path}: predictions are written as .csv, .json or .jsonl; end the name in one of them")
    # A file name may hold bytes that are no UTF-8 (surrogates in Python); a backslash escape is valid JSON.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        write(rows, file)


def _write_lines(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    for row in rows:
        file.write(json.dumps(_named(row), ensure_ascii=False) + "\n")


def _write_json(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    separator = "["
    for row in rows:
        file.write(f"{separator}\n{json.dumps(_named(row), ensure_ascii=False)}")
        separator = ","
    file.write("[]\n" if separator == "[" else "\n]\n")


def _write_csv(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    """The number of columns is that of the first row with an answer; rows of errors before it wait for it."""
    table = csv.writer(file)
    waiting: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        if not top:
            waiting.append(row)
            if "top" not in row:
                continue
            top = len(row["top"])
            _csv_head(table, top)
            _csv_rows(table, waiting, top)
        else:
            _csv_rows(table, [row], top)
    if not top:
        _csv_head(table, top)
        _csv_rows(table, waiting, top)


def _csv_head(table: Any, top: int) -> None:
    pairs = [f"{name}_{i}" for i in range(1, top + 1) for name in ("class", "probability")]
    table.writerow(["path", "start", "end", *pairs, "error"])


def _csv_rows(table: Any, rows: list[dict[str, Any]], top: int) -> None:
    for row in rows:
        answers = [cell(value) for pair in row["top"] for value in pair] if "top" in row else [""] * (2 * top)
        error = cell(row.get("error", ""))
        table.writerow([cell(row["path"], path=True), row.get("start"), row.get("end"), *answers, error])


def print_rows(rows: Iterable[dict[str, Any]], quiet: bool = False) -> list[dict[str, Any]]:
    """Rows of `predict` on the screen as they come, a line for each window below its file's name; and back as a list."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    kept: list[dict[str, Any]] = []
    for row in rows:
        if not quiet:
            if not kept or kept[-1]["path"] != row["path"]:
                console.print(Text(row["path"], style="bold"))
            if "error" in row:
                line = Text(f"  {row['error']}", style="red")
            else:
                time = clock(row["start"], row["end"])
                line = Text(f"  {time:<17} " if time else "  ", style="dim")
                for place, (name, p) in enumerate(row["top"]):
                    line.append(f"{name} {p:.3f}   ", style="not dim" if place == 0 else "dim")
            console.print(line)
        kept.append(row)
    return kept


def _named(row: dict[str, Any]) -> dict[str, Any]:
    if "top" not in row:
        return row
    return {**row, "top": [{"class": name, "probability": p} for name, p in row["top"]]}
