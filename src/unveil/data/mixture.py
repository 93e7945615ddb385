"""Several folders → one list of rows, with how often the files of each are seen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from unveil.data.manifest import Manifest
from unveil.data.row import WEIGHT
from unveil.errors import UserError


def parsed_weights(given: Sequence[str | float] | str | float, folders: int) -> list[float]:
    """What `--data-weight` says, one number for each folder; nothing where it says nothing.

    Raises:
        UserError: one that is not a number above zero, or not as many as folders.
    """
    weights = []
    for value in [given] if isinstance(given, str | int | float) else given:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise UserError(
                f"--data-weight {value}: a weight is a number above 0, how often the files of a folder are seen in an epoch. "
                "Leave a folder out that is not to be seen."
            )
        weights.append(number)
    if weights and len(weights) != folders:
        raise UserError(
            f"--data-weight: {len(weights)} of them, but {folders} of --data. Give one for each folder, in the same order "
            "(--data images/ --data-weight 1 --data clips/ --data-weight 2)."
        )
    return weights


def mixture(
    paths: Sequence[str | os.PathLike[str]],
    suffixes: Collection[str],
    weights: Sequence[float] = (),
    labelled: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Manifest:
    """The rows of all folders, in the folders' order; with the column `weight` where weights are given.

    Args:
        paths, suffixes, warn: as of `Manifest.scan`.
        weights: of each folder; none for one pass over every file.
        labelled: the labels are to be learned, and so every folder must have some.

    Raises:
        UserError: as `Manifest.scan`; a folder or a file that is given twice, a folder so light that none of its files would
            be seen, one without labels beside labelled ones.
    """
    if not paths:
        return Manifest.scan(paths, suffixes, warn)
    _refuse_twice(paths)
    parts = [Manifest.scan([path], suffixes, warn) for path in paths]
    _refuse_shared(paths, parts)
    if labelled and len(parts) > 1:
        _compare_labels(paths, parts, warn)
    tables = []
    for number, part in enumerate(parts):
        table = part.table
        if WEIGHT.name in table.column_names:  # another program's, of whatever meaning
            table = table.drop_columns([WEIGHT.name])
        if weights:
            if round(weights[number] * len(part)) < 1:
                raise UserError(
                    f"--data-weight {weights[number]:g}: of the {len(part)} files of {paths[number]} none would be seen in an "
                    f"epoch. At least {1 / len(part):.2g} shows one."
                )
            table = table.append_column(WEIGHT, pa.array([weights[number]] * len(part), WEIGHT.type))
        tables.append(table)
    return Manifest(pa.concat_tables(tables, promote_options="default"))


def _refuse_twice(paths: Sequence[str | os.PathLike[str]]) -> None:
    met: dict[str, str | os.PathLike[str]] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in met:
            other = "" if str(met[real]) == str(path) else f" and as {met[real]}"
            raise UserError(
                f"--data {path} is given twice{other}. To see its files more often than others': --data-weight."
            )
        met[real] = path


def _refuse_shared(paths: Sequence[str | os.PathLike[str]], parts: Sequence[Manifest]) -> None:
    """A file that two folders list would be seen twice, once with each one's label."""
    met: dict[str, int] = {}
    for number, part in enumerate(parts):
        for path in part.table["path"].unique().to_pylist() if len(parts) > 1 else ():
            if met.setdefault(path, number) != number:
                raise UserError(f"{path} belongs to --data {paths[met[path]]} and to --data {paths[number]}.")


def _compare_labels(
    paths: Sequence[str | os.PathLike[str]], parts: Sequence[Manifest], warn: Callable[[str], None] | None
) -> None:
    classes = [part.classes for part in parts]
    without = [path for path, names in zip(paths, classes, strict=True) if not names]
    if without and any(classes):
        raise UserError(
            f"--data {without[0]} has no labels, other folders have: put its files into one folder per class, or beside them a "
            "labels.csv with the columns path,label; or leave it out."
        )
    several = {part.multi_label for part in parts}
    if len(several) > 1:
        names = [str(path) for path, part in zip(paths, parts, strict=True) if part.multi_label]
        raise UserError(
            f"the files of {', '.join(names)} may have several labels each, those of the other folders have one: their labels "
            "cannot be learned together."
        )
    strangers = []
    for number, names in enumerate(classes):
        others = {name for other, more in enumerate(classes) if other != number for name in more}
        if names and not set(names) & others:
            strangers.append(str(paths[number]))
    if strangers and warn is not None:
        count = len({name for names in classes for name in names})
        warn(
            f"no class in common with the other folders: {', '.join(strangers)}; one classifier is trained for all {count} classes"
        )
