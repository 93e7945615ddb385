"""How often a row is seen, so that rare labels are seen as often as common ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from unveil.data.manifest import Manifest
from unveil.data.row import WEIGHT, label_names
from unveil.errors import UserError


def balanced(manifest: Manifest) -> Manifest:
    """The rows with the column `weight`: of each the sum over its labels of 1 / how many rows have that label, the mean being 1.

    So are the rows of AudioSet drawn, whose labels are many and unequal (AST, arXiv:2104.01778; Audio-MAE, arXiv:2207.06405).
    There draws are with replacement; here a row of weight w is seen w times in an epoch, rounded down or up at random: the
    averages are the same, and no row is left out by chance that has a whole time. An epoch is as long as without weights.

    Raises:
        UserError: a row without a label.
    """
    names = [label_names(label) for label in manifest.column("label")]
    if not all(names):
        raise UserError(
            f"--balance: {sum(not labels for labels in names):,} of {len(names):,} files have no label, and how often they are to be "
            "seen cannot be told. Leave the flag out, or the files."
        )
    number = {name: i for i, name in enumerate(manifest.classes)}
    of = np.array([number[name] for labels in names for name in set(labels)])
    row = np.repeat(np.arange(len(names)), [len(set(labels)) for labels in names])
    rarity = 1.0 / np.bincount(of, minlength=len(number))
    weights = np.bincount(row, rarity[of], minlength=len(names))
    table = manifest.table
    if WEIGHT.name in table.column_names:
        table = table.drop_columns([WEIGHT.name])
    return Manifest(table.append_column(WEIGHT, pa.array(weights * (len(names) / weights.sum()), WEIGHT.type)))
