"""What is wrong with a set of files as a whole: copies, classes that are empty or missing from a split."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from unveil.data.manifest import Manifest
from unveil.data.row import SPLITS

pc: Any = pyarrow.compute  # its functions are made when it is imported, and unknown to type checkers


_DIGITS = 32
"""Of a hash of content."""
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
"""Factors that leave texts which differ in a few places as different numbers."""


class Duplicate(NamedTuple):
    """Files of the same content.

    `splits`: theirs, sorted; a file of no split counts as training where others have one. `labels`: the differing ones.
    """

    paths: list[str]
    splits: list[str]
    labels: list[str]

    @property
    def leaks(self) -> bool:
        """Whether what is tested was trained on."""
        return len(self.splits) > 1

    @property
    def contradicts(self) -> bool:
        """Whether the copies are labelled differently."""
        return len(self.labels) > 1


def duplicates(manifest: Manifest) -> list[Duplicate]:
    """Files of the same content, by the hashes that `unveil data check` measured; none without them."""
    if "hash" not in manifest.table.column_names:
        return []
    files = manifest.table.select(["path", "hash"]).filter(pc.field("hash").is_valid())
    counts = files.group_by("hash").aggregate([("path", "count_distinct")])
    copied = counts.filter(pc.field("path_count_distinct") > 1)["hash"]
    rows = manifest.table.filter(pc.is_in(manifest.table["hash"], copied))
    marked = bool(set(manifest.table["split"].unique().to_pylist()) & {"val", "test"})
    groups: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    columns = (rows[name].to_pylist() for name in ("hash", "path", "label", "split"))
    for content, path, label, split in zip(*columns, strict=True):
        groups[content][path].append((label, (split or "train") if marked else split))
    found = []
    for paths in groups.values():
        # A file may have several rows (segments): it is their labels together that a copy must have as well.
        labels = {"; ".join(sorted({label for label, _ in rows})) for rows in paths.values()}
        splits = {split for rows in paths.values() for _, split in rows}
        found.append(Duplicate(sorted(paths), sorted(splits), sorted(labels)))
    return sorted(found, key=lambda duplicate: (not duplicate.leaks, not duplicate.contradicts, duplicate.paths))


def surely_differ(*contents: pa.ChunkedArray) -> bool:
    """Whether no two hashes of content are the same, in all columns together: False may be a mistake, True is none.

    Numbers of 64 bits are made of them and sorted, which takes a tenth of the time that comparing the texts takes.
    """
    numbers = [np.empty(0, np.uint64)]
    for chunk in (chunk for content in contents for chunk in content.chunks if len(chunk)):
        lengths = pc.min_max(pc.binary_length(chunk)).as_py()
        if chunk.null_count or lengths != {"min": _DIGITS, "max": _DIGITS}:
            return False
        _, bounds, texts = chunk.buffers()
        first = int(np.frombuffer(bounds, np.int32)[chunk.offset])
        eights = np.frombuffer(texts, np.uint64, len(chunk) * _DIGITS // 8, first).reshape(len(chunk), -1)
        numbers.append(eights @ _ODD)  # modulo 2⁶⁴
    ordered = np.sort(np.concatenate(numbers))
    return bool((ordered[1:] != ordered[:-1]).all())


def copies_across(train: Manifest, held_out: Manifest) -> list[str]:
    """The files that are held out, but whose content is trained on."""
    if "hash" not in train.table.column_names or "hash" not in held_out.table.column_names:
        return []
    if surely_differ(train.table["hash"], held_out.table["hash"]):
        return []
    known = train.table["hash"].drop_null()
    return held_out.table["path"].filter(pc.is_in(held_out.table["hash"], known)).unique().to_pylist()


def empty_classes(manifest: Manifest) -> list[str]:
    """The classes without a single readable file."""
    return sorted(set(manifest.classes) - set(manifest.readable().classes))


def missing_classes(manifest: Manifest) -> dict[str, list[str]]:
    """For each split with labels, the classes that have readable files, but none in it; a split that has all is left out."""
    readable = manifest.readable()
    every = set(readable.classes)
    found = {split: every - set(part.classes) for split in SPLITS if (part := readable.select(split)).classes}
    return {split: sorted(missing) for split, missing in found.items() if missing}


def listed(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
