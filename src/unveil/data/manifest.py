"""The manifest: one row for each file or segment of a file, and how it is made from folders and lists of labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unveil.data.labels_csv import read_labels
from unveil.errors import UserError

SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("split", pa.string()),
        ("group", pa.string()),
    ]
)


class Row(NamedTuple):
    """A file, or the part of it from `start` to `end` (seconds; None: from its beginning, to its end).

    `label`: several are joined by ";", "" for none. `split`: "", "train", "val" or "test". `group`: rows of one group
    are never divided between training and validation; "" for none but its own file.
    """

    path: str
    label: str = ""
    start: float | None = None
    end: float | None = None
    split: str = ""
    group: str = ""


class Manifest:
    """An immutable table with the columns of `Row`; further (measured) columns are kept.

    Args:
        table: with at least the columns of `SCHEMA`.
    """

    def __init__(self, table: pa.Table):
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise ValueError(f"a manifest has the columns {SCHEMA.names}; missing: {missing}")
        extra = [name for name in table.column_names if name not in SCHEMA.names]
        schema = pa.schema([*SCHEMA, *(table.schema.field(name) for name in extra)])
        self._table: pa.Table = table.select(schema.names).cast(schema).combine_chunks()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Manifest:
        """A manifest of `rows`, in their order."""
        columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
        return cls(pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA))

    @classmethod
    def scan(cls, paths: Sequence[str | os.PathLike[str]], suffixes: Collection[str]) -> Manifest:
        """List files; none is opened.

        Args:
            paths: folders, single files, and lists of labels (`.csv`). A folder that holds `labels.csv` is read from it.
                Otherwise all its files are listed, sorted, without hidden ones; folders named `train`, `val`, `test` at the
                top give the split, the folders below it the label.
            suffixes: of the files that are meant, with the dot, in lower case: {".mp4"}.

        Raises:
            UserError: nothing there, no such file, a mistake in a list (with its line and column).
        """
        rows: list[Row] = []
        wanted = {suffix.lower() for suffix in suffixes}
        for path in paths:
            path = os.path.abspath(path)
            if not os.path.exists(path):
                raise UserError(f"{path}: no such file or folder.")
            if os.path.isdir(path):
                listed = os.path.join(path, "labels.csv")
                rows += _read_list(listed, wanted) if os.path.isfile(listed) else _list_folder(path, wanted)
            elif path.lower().endswith(".csv"):
                rows += _read_list(path, wanted)
            elif _suffix(path) in wanted:
                rows.append(Row(path))
            else:
                raise UserError(f"{path}: not one of {_listed(wanted)}.")
        if not rows:
            raise UserError("no files: give at least one folder or file.")
        return cls.of(rows)

    # ---- reading

    @property
    def table(self) -> pa.Table:
        """The rows as a pyarrow table."""
        return self._table

    def __len__(self) -> int:
        return self._table.num_rows

    def __iter__(self) -> Iterator[Row]:
        return (self.row(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Manifest({len(self)} rows, {len(self.classes)} classes)"

    def row(self, i: int) -> Row:
        """The i-th row.

        Raises:
            IndexError: out of range.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        return Row(*(self._table.column(name)[i].as_py() for name in SCHEMA.names))

    def column(self, name: str) -> list:
        """A column as a Python list."""
        return self._table.column(name).to_pylist()

    @property
    def classes(self) -> list[str]:
        """The names of all labels, sorted."""
        labels = self._table.column("label").unique().to_pylist()
        return sorted({name for label in labels for name in label_names(label)})

    @property
    def multi_label(self) -> bool:
        """Whether any row has several labels."""
        return any(len(label_names(label)) > 1 for label in self._table.column("label").unique().to_pylist())

    @property
    def hash(self) -> str:
        """A hash of what the rows say (path, label, start, end); the same when the whole folder is moved."""
        digest = hashlib.sha256()
        columns = (self.column(name) for name in ("label", "start", "end"))
        for path, label, start, end in zip(self.relative_paths(), *columns, strict=True):
            fields = (path, label, repr(start), repr(end))
            digest.update("\0".join(fields).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def relative_paths(self) -> list[str]:
        """The paths below the folder that all have in common, with forward slashes: the same wherever the data lie."""
        paths = self.column("path")
        root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        cut = len(root) + (not root.endswith(os.sep)) if root else 0
        return [path[cut:].replace(os.sep, "/") for path in paths]

    # ---- choosing and keeping

    def select(self, which: str | Sequence[bool] | Sequence[int] | np.ndarray) -> Manifest:
        """Some of the rows.

        Args:
            which: a split ("train", "val", "test", ""), a mask of as many booleans as rows, or row numbers.
        """
        if isinstance(which, str):
            return Manifest(self._table.filter(pc.field("split") == which))
        chosen = np.asarray(which)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"a mask of {len(self)} booleans is needed, got {chosen.shape}")
            return Manifest(self._table.filter(pa.array(chosen)))
        return Manifest(self._table.take(pa.array(chosen.astype(np.int64))))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as parquet."""
        pq.write_table(self._table, os.fspath(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or not a manifest.
        """
        try:
            return cls(pq.read_table(os.fspath(path)))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise UserError(f"{path}: not a manifest ({error}).") from error


def label_names(label: str) -> list[str]:
    """The labels that are joined in `label` by ";"."""
    return [name for part in label.split(";") if (name := part.strip())]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes)) or "none"


def list_files(root: str) -> list[str]:
    """All files below `root`, sorted, without hidden ones. Links are followed; a loop of links is entered once."""
    files: list[str] = []

    def identity(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def enter(folder: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error.strerror}).") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                folder_id = identity(entry.stat()) if entry.is_dir() else None
                is_file = entry.is_file()
            except OSError:  # a link to itself
                continue
            if is_file:
                files.append(entry.path)
            elif folder_id is not None and folder_id not in above:
                enter(entry.path, above | {folder_id})

    enter(root, frozenset({identity(os.stat(root))}))
    return files


def _list_folder(root: str, suffixes: Collection[str]) -> list[Row]:
    all_files = list_files(root)
    files = [path for path in all_files if _suffix(path) in suffixes]
    if not files:
        found = _listed({_suffix(path) or "(no suffix)" for path in all_files})
        raise UserError(f"{root}: no file ends in {_listed(suffixes)} (found: {found}).")
    parents = [os.path.dirname(os.path.relpath(path, root)).replace(os.sep, "/") for path in files]
    tops = {parent.split("/", 1)[0] for parent in parents}
    splits = tops & set(SPLITS)
    if splits and tops - splits:
        others = ", ".join(sorted(top + "/" if top else "files" for top in tops - splits)[:5])
        raise UserError(
            f"{root}: {_listed(splits)} beside {others}. Keep all files in train/, val/ and test/, or none; "
            "or say in labels.csv (path,label,split) what is meant."
        )
    rows = []
    for path, parent in zip(files, parents, strict=True):
        split, _, label = parent.partition("/") if splits else ("", "", parent)
        rows.append(Row(path, label, split=split))
    return rows


def _read_list(path: str, suffixes: Collection[str]) -> list[Row]:
    rows = []
    for line, fields in read_labels(path):
        if _suffix(fields["path"]) not in suffixes:
            raise UserError(f"{path}, line {line}, column path: {fields['path']} is not one of {_listed(suffixes)}.")
        rows.append(Row(**fields))
    return rows
