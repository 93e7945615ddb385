"""The manifest: one row for each file or segment of a file, and how it is made from folders and lists of labels."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from unveil.data import manifest_file
from unveil.data.listing import list_rows, listed_suffixes
from unveil.data.order import FIELD
from unveil.data.row import SCHEMA, WEIGHT, Row, label_names
from unveil.errors import UserError

pc: Any = pyarrow.compute  # its functions are made when it is imported, and unknown to type checkers

__all__ = ["Manifest", "Row", "label_names"]


class Manifest:
    """An immutable table with the columns of `Row`; further (measured) columns are kept.

    Args:
        table: with at least the columns of `SCHEMA`.
    """

    def __init__(self, table: pa.Table):
        if "caption" not in table.column_names:  # kept before there were any
            table = table.append_column(SCHEMA.field("caption"), pa.repeat("", len(table)))
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
    def scan(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        suffixes: Collection[str],
        warn: Callable[[str], None] | None = None,
        anew: bool = False,
    ) -> Manifest:
        """List files; none is opened.

        Args:
            paths: folders, single files, lists of labels or captions (`.csv`), manifests or captions (`.parquet`), archives
                (`.tar`, as webdataset writes them). A folder that holds `manifest.parquet`, as `unveil data check` leaves it,
                is read from that, one that holds `labels.csv` or `captions.csv` from this. Otherwise all its files are listed,
                sorted, without hidden ones; folders named `train`, `val`, `test` at the top give the split, the folders
                below it the label. Archives in a folder are read where no file of its own is of the suffixes.
            suffixes: of the files that are meant, with the dot, in lower case: {".mp4"}.
            warn: told when files changed since their manifest was made; a Python warning by default.
            anew: list files also where a manifest is.

        Raises:
            UserError: nothing there, no such file, a mistake in a list (with its line and column), a manifest with paths
                outside its folder.
        """
        tables: list[pa.Table] = []
        wanted = {suffix.lower() for suffix in suffixes}
        for path in paths:
            path = os.path.abspath(path)
            if not os.path.exists(path):
                raise UserError(f"{path}: no such file or folder.")
            if (kept := manifest_file.of(path)) and not anew:
                table, changes = manifest_file.read(kept)
                if changes:
                    folder = os.path.dirname(kept)
                    text = (
                        f"{folder} changed since it was checked ({'; '.join(changes)}): run `unveil data check` again."
                    )
                    (warn or warnings.warn)(text)
                table = _with_suffix(table, wanted)
                if not len(table):
                    raise UserError(f"{kept}: none of its files ends in {listed_suffixes(wanted)}.")
                tables.append(table)
            else:
                tables.append(cls.of(list_rows(path, wanted)).table)
        if not tables:
            raise UserError("no files: give at least one folder or file.")
        return cls(pa.concat_tables(tables, promote_options="default"))

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
        return sorted({name for names in self._names_of_labels for name in names})

    @property
    def splits(self) -> list[str]:
        """The splits that rows are marked with, sorted; "" among them if some are not."""
        return sorted(self._table.column("split").unique().to_pylist())

    @property
    def weights(self) -> np.ndarray | None:
        """How often each row is seen in an epoch, float64 [rows] (the column `weight`); None where that is not said: once."""
        if WEIGHT.name not in self._table.column_names:
            return None
        return np.asarray(self._table.column(WEIGHT.name), np.float64)

    @property
    def multi_label(self) -> bool:
        """Whether any row has several labels."""
        return any(len(names) > 1 for names in self._names_of_labels)

    @property
    def captioned(self) -> bool:
        """Whether any row has a text beside its signal."""
        return bool(pc.any(pc.not_equal(self._table["caption"], "")).as_py())

    @cached_property
    def _names_of_labels(self) -> list[list[str]]:
        return [label_names(label) for label in self._table.column("label").unique().to_pylist()]

    @cached_property
    def files(self) -> int:
        """How many files there are: one may have several rows."""
        paths = self._table.column("path")
        if pc.all(pc.less(paths[:-1], paths[1:])).as_py():  # sorted, as folders are listed: a twentieth of what follows
            return len(self)
        return len(paths.unique())

    @property
    def hash(self) -> str:
        """A hash of what the rows say, and another of the files' content where that was measured: "rows" or "rows-content".

        Both are the same when the whole folder is moved. See `agrees`.
        """
        says = hashlib.sha256()
        for column in (
            self.relative_path_column(),
            *(self._table.column(name) for name in SCHEMA.names if name not in ("path", "caption")),
            *([self._table.column("caption")] if self.captioned else []),
        ):
            _update(says, column)
        if "hash" not in self._table.column_names or self._table.column("hash").null_count == len(self):
            return says.hexdigest()
        content = hashlib.sha256()
        _update(content, self._table.column("hash"))
        return f"{says.hexdigest()}-{content.hexdigest()}"

    def agrees(self, recorded: str) -> bool:
        """Whether these are the data that had the hash `recorded`, as far as both were measured."""
        return all(now == then for now, then in zip(self.hash.split("-"), recorded.split("-"), strict=False))

    def relative_paths(self, rows: np.ndarray | None = None) -> list[str]:
        """The paths below the folder that all have in common, with forward slashes: the same wherever the data lie.

        Args:
            rows: of these only, numbers [n].
        """
        if rows is None:
            return self.relative_path_column().to_pylist()
        return self._relative(self._table.column("path").take(pa.array(rows))).to_pylist()

    def relative_path_column(self) -> pa.ChunkedArray:
        """`relative_paths` as pyarrow has them."""
        return self._relative_paths

    @cached_property
    def _relative_paths(self) -> pa.ChunkedArray:
        return self._relative(self._table.column("path"))

    def _relative(self, paths: pa.ChunkedArray) -> pa.ChunkedArray:
        relative = pc.utf8_slice_codeunits(paths, self._length_of_root)
        return relative if os.sep == "/" else pc.replace_substring(relative, os.sep, "/")

    @cached_property
    def _length_of_root(self) -> int:
        # What the first and the last in alphabetical order begin with, all between begin with.
        ends = pc.min_max(self._table.column("path")).as_py()
        root = os.path.commonpath([os.path.dirname(end or "") for end in ends.values()])
        return len(root) + (bool(root) and not root.endswith(os.sep))

    def bad_files(self) -> list[tuple[str, str]]:
        """The files that were found unreadable when they were checked, each once: (path, what the decoder said)."""
        if "error" not in self._table.column_names:
            return []
        bad = self._table.select(["path", "error"]).filter(pc.field("error").is_valid())
        pairs = dict(zip(bad["path"].to_pylist(), bad["error"].to_pylist(), strict=True))
        return [(path, f"{path}: {error}") for path, error in pairs.items()]

    def readable(self) -> Manifest:
        """The rows whose file was not found unreadable."""
        if "error" not in self._table.column_names or self._table["error"].null_count == len(self):
            return self
        return Manifest(self._table.filter(pc.field("error").is_null()))

    def labelled(self) -> Manifest:
        """The rows that have a label."""
        if pc.all(pc.not_equal(self._table["label"], "")).as_py():
            return self
        return Manifest(self._table.filter(pc.field("label") != ""))

    # ---- choosing and keeping

    def select(self, which: str | Sequence[bool] | Sequence[int] | np.ndarray, *more: str) -> Manifest:
        """Some of the rows, in their order.

        Args:
            which: a split ("train", "val", "test", ""), a mask of as many booleans as rows, or row numbers.
            more: further splits.
        """
        if isinstance(which, str):
            return Manifest(self._table.filter(pc.field("split").isin([which, *more])))
        chosen = np.asarray(which)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"a mask of {len(self)} booleans is needed, got {chosen.shape}")
            return Manifest(self._table.filter(pa.array(chosen)))
        return Manifest(self._table.take(pa.array(chosen.astype(np.int64))))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as parquet."""
        # The digests are those of names in the whole list. Dictionaries only where texts come again and again: half the time.
        kept = [name for name in self._table.column_names if name != FIELD.name]
        again: Any = ["label", "split", "group"]  # declared as a truth value
        pq.write_table(self._table.select(kept), os.fspath(path), use_dictionary=again, write_statistics=False)

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


def _with_suffix(table: pa.Table, suffixes: Collection[str]) -> pa.Table:
    """The rows whose path ends in one of the suffixes."""
    paths = table["path"]
    written = os.path.splitext(paths[0].as_py())[1] if len(paths) else ""
    if written.lower() in suffixes and pc.all(pc.ends_with(paths, written)).as_py():  # a twentieth of what follows
        return table
    pattern = "(" + "|".join(re.escape(suffix) for suffix in sorted(suffixes)) + ")$"
    return table.filter(pc.match_substring_regex(paths, pattern, ignore_case=True))


def _update(digest: hashlib._Hash, column: pa.ChunkedArray) -> None:
    """Hash a column's values; their lengths first, so that no two columns run into each other."""
    if pa.types.is_string(column.type):
        lengths = pc.binary_length(column).fill_null(-1)
        digest.update(np.asarray(lengths, np.int64).tobytes())
        for chunk in column.chunks:
            filled = chunk.fill_null("")
            _, offsets, data = filled.buffers()
            if len(filled) and data is not None:
                bounds = np.frombuffer(offsets, np.int32)
                digest.update(memoryview(data)[bounds[filled.offset] : bounds[filled.offset + len(filled)]])
    else:
        digest.update(np.asarray(column.fill_null(np.nan), np.float64).tobytes())
