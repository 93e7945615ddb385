"""What an evaluation says: numbers, per class, per sample; as files and as a table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unveil.errors import UserError
from unveil.evaluation.features import has_label

if TYPE_CHECKING:
    from rich.table import Table


COUNTS = ("samples", "texts")
"""Those of the metrics that are no fractions."""


@dataclass
class Report:
    """The result of an evaluation.

    Attributes:
        name: of the evaluation: "accuracy", "knn", …; the stem of its files.
        metrics: "top1", "top5", "mean_class_accuracy" and "samples"; "map" instead of the first three where a sample
            may have several labels. Fractions, not per cent.
        classes: names, in the order of the labels.
        per_class: rows with `class`, `samples` and `accuracy` (or `average_precision`), None where no sample has it; none
            in a retrieval.
        confusion: int64 [classes,classes], rows the truth, columns the answer; None with several labels.
        predictions: a row a sample: index, label, predicted, probability, correct.
        settings: of the evaluation: k, layer, the regularisation chosen, …
        bad: files that could not be read, (path, error); they are in none of the numbers.
    """

    name: str
    metrics: dict[str, float]
    classes: list[str]
    per_class: list[dict[str, Any]]
    confusion: np.ndarray | None
    predictions: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def save(self, folder: Path | str, paths: Sequence[str] | None = None) -> list[Path]:
        """Write `NAME.json`, `NAME.csv` (a row a sample), `NAME_classes.csv` and, with a confusion matrix, `NAME.png`.

        Args:
            folder: made if need be.
            paths: file of each row of the manifest; a column of the CSV when given.

        Returns:
            The files written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.predictions
        if paths is not None:
            rows = [{"path": str(paths[row["index"]]), **row} for row in rows]
        written = [folder / f"{self.name}.json", folder / f"{self.name}.csv"]
        _write_csv(written[1], rows)
        if self.per_class:
            written.append(folder / f"{self.name}_classes.csv")
            _write_csv(written[-1], self.per_class)
        if self.confusion is not None:
            from unveil.evaluation.figures import confusion_matrix

            picture = folder / f"{self.name}.png"
            confusion_matrix(self.confusion, self.classes, picture)
            written.append(picture)
        # The JSON comes last and by renaming: where it is, the evaluation is whole.
        temporary = written[0].with_suffix(".json.part")
        temporary.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, written[0])
        return written

    def as_dict(self) -> dict[str, Any]:
        """All but the rows of samples, for JSON."""
        return {
            "name": self.name,
            "metrics": self.metrics,
            "settings": self.settings,
            "classes": self.classes,
            "per_class": self.per_class,
            "bad": [{"path": path, "error": error} for path, error in self.bad],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }

    def table(self, classes: int = 30) -> Table:
        """The numbers as a rich table; at most so many classes, the worst first."""
        from rich.table import Table
        from rich.text import Text

        if not self.per_class:
            return self._numbers()
        measure = "average_precision" if "map" in self.metrics else "accuracy"
        table = Table(title=f"{self.name}: {_sentence(self.metrics)}", title_justify="left", min_width=78)
        table.add_column("class", overflow="fold")
        table.add_column(measure.replace("_", " "), justify="right")
        table.add_column("samples", justify="right")
        rows = sorted(self.per_class, key=lambda row: (row[measure] is None, row[measure] or 0.0))
        for row in rows[:classes]:
            value = "–" if row[measure] is None else f"{row[measure]:.3f}"
            table.add_row(Text(row["class"]), value, str(row["samples"]))  # Text: "[b]" in a name is not markup
        if len(rows) > classes:
            table.add_row(Text(f"… {len(rows) - classes} more, in {self.name}_classes.csv"), "", "")
        return self._with_bad(table)

    def _numbers(self) -> Table:
        """A row a number, where there are no classes."""
        from rich.table import Table

        table = Table("number", title=self.name, title_justify="left", min_width=78)
        table.add_column("", justify="right")
        for name, value in self.metrics.items():
            table.add_row(name.replace("_", " "), f"{value:.4f}" if name not in COUNTS else str(int(value)))
        return self._with_bad(table)

    def _with_bad(self, table: Table) -> Table:
        from rich.text import Text

        if self.bad:
            first = f"{self.bad[0][1]}" + (f" (and {len(self.bad) - 1} more)" if len(self.bad) > 1 else "")
            table.caption = Text(f"left out, cannot be read: {first}", style="red")
            table.caption_justify = "left"
        return table


def summarise(
    name: str, probabilities: Tensor, labels: Tensor, indices: Tensor, classes: Sequence[str], **settings: Any
) -> Report:
    """Scores of samples → report, with torchmetrics.

    Args:
        name: of the evaluation.
        probabilities: [n,classes].
        labels: int64 [n] (-1 for none: left out), or multi-hot [n,classes].
        indices: int64 [n], rows of the manifest.
        classes: their names.
        settings: kept in the report.

    Raises:
        UserError: no samples, or scores for another number of classes.
    """
    keep = has_label(labels)
    probabilities, labels, indices = probabilities.float().cpu()[keep], labels[keep], indices[keep]
    classes = list(classes)
    if len(probabilities) == 0:
        raise UserError("no samples to evaluate: none has a label")
    if probabilities.shape[1] != len(classes):
        raise UserError(
            f"the network answers with {probabilities.shape[1]} classes, the data have {len(classes)} "
            f"({', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}): evaluate on the classes it was trained on"
        )
    measure = _multi_label if labels.ndim == 2 else _single_label
    return measure(name, probabilities, labels, indices, classes, settings)


def _single_label(
    name: str, p: Tensor, labels: Tensor, indices: Tensor, classes: list[str], settings: dict[str, Any]
) -> Report:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

    n = len(classes)
    if labels.max() >= n:
        raise UserError(f"label {int(labels.max())} with {n} classes: the labels do not belong to these class names")
    confusion = multiclass_confusion_matrix(p, labels, num_classes=n) if n > 1 else torch.tensor([[len(labels)]])
    counts = confusion.sum(1)
    correct = confusion.diagonal()
    seen = counts > 0
    metrics = {
        "top1": float(correct.sum() / counts.sum()),
        "top5": float(multiclass_accuracy(p, labels, num_classes=n, top_k=min(5, n), average="micro"))
        if n > 1
        else 1.0,
        "mean_class_accuracy": float((correct[seen] / counts[seen]).mean()),
        "samples": float(len(labels)),
    }
    per_class = [
        {"class": c, "accuracy": float(correct[i] / counts[i]) if seen[i] else None, "samples": int(counts[i])}
        for i, c in enumerate(classes)
    ]
    best, answers = p.max(1)
    predictions = [
        {
            "index": index,
            "label": classes[label],
            "predicted": classes[answer],
            "probability": round(probability, 6),
            "correct": label == answer,
        }
        for index, label, answer, probability in zip(
            indices.tolist(), labels.tolist(), answers.tolist(), best.tolist(), strict=True
        )
    ]
    return Report(name, metrics, classes, per_class, confusion.numpy().astype(np.int64), predictions, settings)


def _multi_label(
    name: str, p: Tensor, labels: Tensor, indices: Tensor, classes: list[str], settings: dict[str, Any]
) -> Report:
    from torchmetrics.functional.classification import binary_average_precision

    truth = (labels > 0.5).long()
    counts = truth.sum(0)
    # Class by class, and only where there is something to find: average precision has no value without a positive.
    precision = [
        float(binary_average_precision(p[:, i], truth[:, i])) if counts[i] else None for i in range(len(classes))
    ]
    values = [value for value in precision if value is not None]
    if not values:
        raise UserError("no sample has a label: nothing to measure")
    per_class = [
        {"class": c, "average_precision": value, "samples": int(count)}
        for c, value, count in zip(classes, precision, counts, strict=True)
    ]
    predictions = []
    for row, index in enumerate(indices.tolist()):
        answer = int(p[row].argmax())
        predictions.append(
            {
                "index": index,
                "label": ";".join(classes[i] for i in truth[row].nonzero().flatten().tolist()),
                "predicted": ";".join(classes[i] for i in (p[row] >= 0.5).nonzero().flatten().tolist()),
                "probability": round(float(p[row, answer]), 6),
                "correct": bool(truth[row, answer]),
            }
        )
    metrics = {"map": float(np.mean(values)), "samples": float(len(labels))}
    return Report(name, metrics, classes, per_class, None, predictions, settings)


def _sentence(metrics: dict[str, float]) -> str:
    return "  ".join(f"{k} {int(v) if k in COUNTS else format(v, '.4f')}" for k, v in metrics.items())


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: cell(value, path=key == "path") for key, value in row.items()} for row in rows)


def cell(value: Any, path: bool = False) -> Any:
    """A value for a CSV file that a spreadsheet does not take for a formula.

    File and class names may come from strangers, and `=HYPERLINK(…)` is a possible name. A path gets "./" in front, which names the
    same file; other text an apostrophe, as spreadsheets themselves write it. Numbers stay numbers.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    if path:
        return f"./{value}"
    try:
        float(value)  # a class called -1
    except ValueError:
        return f"'{value}"
    return value
