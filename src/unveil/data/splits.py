"""Training and validation: as the manifest says, otherwise drawn from it, the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from unveil.data.audit import surely_differ
from unveil.data.manifest import Manifest, label_names
from unveil.data.order import digests, digests_of_rows
from unveil.errors import UserError

_NOTHING = 1e-9
"""What rounding leaves of no gain at all, in rows."""
pc: Any = pyarrow.compute  # its functions are made when it is imported, and unknown to type checkers


def split(manifest: Manifest, val_fraction: float, seed: int = 0) -> tuple[Manifest, Manifest]:
    """Divide a manifest into training and validation rows.

    Rows marked "val" validate (without any: those marked "test"), rows marked "train" or not at all train. Where nothing
    is marked but "train", about `val_fraction` of each class is drawn, whole groups at a time; a row without a group is
    grouped with the other segments of its file, and with the copies of it that `unveil data check` found.
    What is drawn depends on the names and the seed, not on the order of rows.

    Args:
        manifest: all rows.
        val_fraction: share of the rows of each class, between 0 and 1.
        seed: another one draws another division.

    Returns:
        Training and validation, each in the manifest's order; every class is in training, and in validation too unless
        rows have several labels or groups tie classes together.

    Raises:
        UserError: too few files or groups to divide.
    """
    marks = set(manifest.splits)
    for mark in ("val", "test"):
        if mark in marks:
            if not marks & {"train", ""}:
                raise UserError(f"all rows belong to validation or test ({mark}): there is nothing to train on.")
            return manifest.select("train", ""), manifest.select(mark)
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction must lie between 0 and 1, got {val_fraction}.")
    chosen = _draw(manifest, val_fraction, seed)
    return manifest.select(~chosen), manifest.select(chosen)


def _draw(manifest: Manifest, fraction: float, seed: int) -> np.ndarray:
    """A mask of the validation rows [rows]."""
    # Of each group its digest, and of each row its group: groups are numbered in the order in which they are drawn.
    found, group = np.unique(_group_digests(manifest, seed), return_inverse=True)
    if len(found) < 2:
        raise UserError(
            f"{len(found)} file (or group) cannot be divided into training and validation: give more files, "
            "or validation data of their own (train/ and val/ folders, or the split column of labels.csv)."
        )
    labels = pc.dictionary_encode(manifest.table["label"]).combine_chunks()
    # A row without labels belongs to the class "", so that unlabelled data divide too.
    names_of = [label_names(label) or [""] for label in labels.dictionary.to_pylist()]
    classes = sorted({name for several in names_of for name in several})
    of_label = np.array([classes.index(several[0]) for several in names_of])
    row_class = of_label[np.asarray(labels.indices)]
    group_class = np.zeros(len(found), np.int64)
    group_class[group] = row_class
    if all(len(several) == 1 for several in names_of) and (group_class[group] == row_class).all():
        drawn = _draw_each(classes, row_class, group, group_class, fraction)
    else:
        row_names = [names_of[number] for number in np.asarray(labels.indices)]
        drawn = _draw_tied(row_names, group, fraction, manifest.multi_label)
    return drawn[group]


def _group_digests(manifest: Manifest, seed: int) -> np.ndarray:
    """The digest of each row's group, uint64 [rows]: the one it names, otherwise the files of its own content, otherwise its
    own file."""
    table = manifest.table
    digest = digests_of_rows(manifest, seed)
    own = pc.dictionary_encode(table["group"]).combine_chunks()
    names = own.dictionary.to_pylist()
    own = np.asarray(own.indices)
    lone = np.asarray([not name for name in names], bool)[own]
    if not lone.all():
        digest = np.where(lone, digest, digests([_named(name) for name in names], seed)[own])
    copied = _copied(table["hash"]) if "hash" in table.column_names else np.zeros(len(table), bool)
    if copied.any():
        rows = pa.table({"hash": table["hash"], "group": table["group"], "name": manifest.relative_path_column()})
        rows = rows.filter(pa.array(copied))
        named = pc.binary_join_element_wise("group", rows["group"], " ")  # as `_named`; the last one stands between
        rows = rows.set_column(2, "name", pc.if_else(pc.equal(rows["group"], ""), rows["name"], named))
        first = rows.group_by("hash").aggregate([("name", "min")])
        of_content = digests(first["name_min"].to_pylist(), seed)[np.asarray(pc.index_in(rows["hash"], first["hash"]))]
        digest = digest.copy()
        digest[copied] = np.where(lone[copied], of_content, digest[copied])
    return digest


def _named(group: str) -> str:
    return f"group {group}"


def _copied(content: pa.ChunkedArray) -> np.ndarray:
    """Which rows have the content of others, too [rows]."""
    if surely_differ(content):
        return np.zeros(len(content), bool)
    numbers = np.asarray(pc.dictionary_encode(content).combine_chunks().indices.fill_null(-1))
    return (np.bincount(numbers + 1, minlength=1)[numbers + 1] > 1) & (numbers >= 0)


def _draw_each(
    classes: list[str],
    row_class: np.ndarray,
    group: np.ndarray,
    group_class: np.ndarray,
    fraction: float,
) -> np.ndarray:
    """A mask of the groups drawn, where each holds one class only: the classes do not disturb each other."""
    size = np.bincount(group, minlength=len(group_class))
    rows = np.bincount(row_class, minlength=len(classes))
    groups = np.bincount(group_class, minlength=len(classes))
    _refuse_lonely([name for name, count in zip(classes, groups.tolist(), strict=True) if count < 2])
    drawn = np.zeros(len(group_class), bool)
    by_class = np.argsort(group_class.astype(np.min_scalar_type(len(classes))), kind="stable")  # small numbers: a tenth
    if (size == 1).all():  # what the loop below draws, at once
        want = np.maximum(1.0, fraction * rows)
        count = np.minimum(np.ceil(want - 0.5 - _NOTHING), groups - 1)
        place = np.arange(len(drawn)) - np.repeat(groups.cumsum() - groups, groups)
        drawn[by_class] = place < np.repeat(count, groups)
        return drawn
    for members, count in zip(np.split(by_class, groups.cumsum()[:-1]), rows.tolist(), strict=True):
        want, have, left = max(1.0, fraction * count), 0, len(members)
        for member, own in zip(members.tolist(), size[members].tolist(), strict=True):
            if want - have <= 0.5 + _NOTHING or left < 2:
                break
            if abs(want - have) - abs(want - have - own) > _NOTHING:
                drawn[member] = True
                have, left = have + own, left - 1
        if not have:  # large groups overshoot any share, and still the class should be seen
            drawn[members[size[members].argmin()]] = True
    return drawn


def _draw_tied(row_names: list[list[str]], group: np.ndarray, fraction: float, multi_label: bool) -> np.ndarray:
    """A mask of the groups drawn, where one group may hold several classes."""
    holds: dict[int, Counter[str]] = defaultdict(Counter)
    size: Counter[int] = Counter()
    for number, names in zip(group.tolist(), row_names, strict=True):
        holds[number].update(names)
        size[number] += 1
    total: Counter[str] = Counter()
    groups_with: Counter[str] = Counter()
    for counts in holds.values():
        total.update(counts)
        groups_with.update(counts.keys())
    if not multi_label:
        _refuse_lonely(sorted(c for c in total if groups_with[c] < 2))
    want = {c: max(1.0, fraction * n) if groups_with[c] > 1 else 0.0 for c, n in total.items()}
    have: Counter[str] = Counter()  # rows drawn, by class
    groups_left = Counter(groups_with)  # groups that train, by class
    drawn = np.zeros(len(holds), bool)

    def take(number: int) -> None:
        drawn[number] = True
        have.update(holds[number])
        groups_left.subtract(dict.fromkeys(holds[number], 1))

    def spare(number: int) -> bool:
        return all(groups_left[c] > 1 for c in holds[number])

    for number in range(len(drawn)):
        gain = sum(abs(want[c] - have[c]) - abs(want[c] - have[c] - n) for c, n in holds[number].items())
        if gain > _NOTHING and spare(number):
            take(number)
    # Large groups may overshoot any share, and still each class should be seen: the smallest that can be spared.
    for c in sorted(total, key=lambda c: (groups_with[c], c)):
        if not have[c] and groups_with[c] > 1:
            candidates = [i for i in range(len(drawn)) if c in holds[i] and not drawn[i] and spare(i)]
            if candidates:
                take(min(candidates, key=size.__getitem__))
    if not drawn.any():
        raise UserError(
            "no group can be spared for validation: each is the only one with some class. Add files, or give validation "
            "data of their own (train/ and val/ folders, or the split column of labels.csv)."
        )
    return drawn


def _refuse_lonely(classes: list[str]) -> None:
    if classes:
        raise UserError(
            f"class {classes[0]!r} has one file (or group) only"
            f"{f', as have {len(classes) - 1} others' if classes[1:] else ''}: each class needs at least two, one to train "
            "on and one to validate. Add files, or leave the class out."
        )
