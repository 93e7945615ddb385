"""The confusion matrix as a picture that can be read with long names and with many classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LONGEST_NAME = 40
NUMBERS_UP_TO = 30  # classes; beyond, a number in every cell is noise


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Write a PNG: rows the truth, columns the answer; shade = share of the row, numbers = counts.

    Args:
        confusion: int [classes,classes].
        classes: names; cut in the middle beyond 40 letters.
        path: of the PNG.
    """
    # The object interface, not pyplot: no global state, no display, no figure left open.
    from matplotlib.figure import Figure

    n = len(classes)
    names = [_name(c) for c in classes]
    cell = 0.42 if n <= NUMBERS_UP_TO else max(0.09, 12 / n)  # inches
    font = 9.0 if n <= NUMBERS_UP_TO else max(2.5, min(9.0, cell * 72 * 0.8))
    margin = max(len(name) for name in names) * font * 0.6 / 72 + 0.6
    side = max(n * cell, 2.0)
    figure = Figure(figsize=(side + margin + 1.0, side + margin + 0.4), layout="constrained")
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(n), names, rotation=90, fontsize=font)
    axes.set_yticks(range(n), names, fontsize=font)
    axes.tick_params(length=0 if n > NUMBERS_UP_TO else 3)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=min(1.0, 4 / side), aspect=20)
    if n <= NUMBERS_UP_TO:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if share[row, column] > 0.55 else "black"
            size = font if confusion[row, column] < 1000 else font * 0.7
            text = str(confusion[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    with warnings.catch_warnings():
        # A box for a letter, not a failure; matplotlib 3.8 says "from current font".
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, format="png", dpi=120)


def _name(name: str) -> str:
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2 - 1) :]}"
    return name.replace("$", r"\$")  # matplotlib would read $…$ as a formula
