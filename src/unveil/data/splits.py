"""Training and validation: as the manifest says, otherwise drawn from it, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np

from unveil.data.manifest import Manifest, label_names
from unveil.errors import UserError


def split(manifest: Manifest, val_fraction: float, seed: int = 0) -> tuple[Manifest, Manifest]:
    """Divide a manifest into training and validation rows.

    Rows marked "val" validate (without any: those marked "test"), rows marked "train" or not at all train. Where nothing
    is marked but "train", about `val_fraction` of each class is drawn, whole groups at a time; a row without a group is
    grouped with the other segments of its file. What is drawn depends on the names and the seed, not on the order of rows.

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
    marks = np.array(manifest.column("split"), dtype=object)
    for mark in ("val", "test"):
        if (marks == mark).any():
            train = (marks == "train") | (marks == "")
            if not train.any():
                raise UserError(f"all rows belong to validation or test ({mark}): there is nothing to train on.")
            return manifest.select(train), manifest.select(marks == mark)
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction must lie between 0 and 1, got {val_fraction}.")
    chosen = _draw(manifest, val_fraction, seed)
    return manifest.select(~chosen), manifest.select(chosen)


def _draw(manifest: Manifest, fraction: float, seed: int) -> np.ndarray:
    """A mask of the validation rows [rows]."""
    paths = manifest.relative_paths()
    names = [f"group {group}" if group else path for group, path in zip(manifest.column("group"), paths, strict=True)]
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    if len(rows_of) < 2:
        raise UserError(
            f"{len(rows_of)} file (or group) cannot be divided into training and validation: give more files, "
            "or validation data of their own (train/ and val/ folders, or the split column of labels.csv)."
        )
    labels = manifest.column("label")
    # A row without labels belongs to the class "", so that unlabelled data divide too.
    holds = {
        name: Counter(c for row in rows for c in (label_names(labels[row]) or [""])) for name, rows in rows_of.items()
    }
    total: Counter[str] = Counter()
    groups_with: Counter[str] = Counter()
    for counts in holds.values():
        total.update(counts)
        groups_with.update(counts.keys())
    alone = sorted(c for c in total if groups_with[c] < 2)
    if alone and not manifest.multi_label:
        raise UserError(
            f"class {alone[0]!r} has one file (or group) only{f', as have {len(alone) - 1} others' if alone[1:] else ''}: "
            "each class needs at least two, one to train on and one to validate. Add files, or leave the class out."
        )
    # A digest of the name orders the groups: adding files hardly changes where the others go.
    order = sorted(rows_of, key=lambda name: _digest(seed, name))
    want = {c: max(1.0, fraction * n) if groups_with[c] > 1 else 0.0 for c, n in total.items()}
    have: Counter[str] = Counter()  # rows drawn, by class
    groups_left = Counter(groups_with)  # groups that train, by class
    drawn: set[str] = set()

    def take(name: str) -> None:
        drawn.add(name)
        have.update(holds[name])
        groups_left.subtract(dict.fromkeys(holds[name], 1))

    def spare(name: str) -> bool:
        return all(groups_left[c] > 1 for c in holds[name])

    for name in order:
        gain = sum(abs(want[c] - have[c]) - abs(want[c] - have[c] - n) for c, n in holds[name].items())
        if gain > 1e-9 and spare(name):
            take(name)
    # Large groups may overshoot any share, and still each class should be seen: the smallest that can be spared.
    for c in sorted(total, key=lambda c: (groups_with[c], c)):
        if not have[c] and groups_with[c] > 1:
            candidates = [name for name in order if c in holds[name] and name not in drawn and spare(name)]
            if candidates:
                take(min(candidates, key=lambda name: len(rows_of[name])))
    if not drawn:
        raise UserError(
            "no group can be spared for validation: each is the only one with some class. Add files, or give validation "
            "data of their own (train/ and val/ folders, or the split column of labels.csv)."
        )
    return np.array([name in drawn for name in names])


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
