"""Folders and lists of labels → rows. No file is opened but the lists."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import NamedTuple

from unveil.data import archives, webdataset
from unveil.data.labels_csv import read_labels
from unveil.data.row import SPLITS, Row
from unveil.errors import UserError


def list_rows(path: str, suffixes: Collection[str]) -> list[Row]:
    """The rows of a folder, of a single file, of a list of labels or captions (`.csv`), or of an archive (`.tar`).

    A folder that holds one of `LISTS` is read from it. Otherwise all its files are listed; folders named `train`, `val`,
    `test` at the top give the split, the folders below it the label. Where none is of the suffixes, archives are looked into.

    Args:
        path: absolute.
        suffixes: of the files that are meant, with the dot, in lower case.

    Raises:
        UserError: no such file, none of the suffixes, a mistake in a list (with its line and column).
    """
    if os.path.isdir(path):
        listed = list_in(path)
        return list_rows(listed, suffixes) if listed else _list_folder(path, suffixes)
    if path.lower().endswith(".parquet"):
        return _read_table(path, suffixes)
    if suffix(path) == archives.SUFFIX:
        return webdataset.rows_of(path, suffixes)
    if path.lower().endswith(".csv"):
        return _read_list(path, suffixes)
    if suffix(path) in suffixes:
        return [Row(as_text(path))]
    raise UserError(f"{path}: not one of {listed_suffixes(suffixes)}.")


#: Lists that speak for the folder they lie in; the first that is there.
LISTS = ("labels.csv", "captions.csv", "captions.parquet")


def list_in(folder: str) -> str | None:
    """The list that speaks for a folder."""
    return next((path for name in LISTS if os.path.isfile(path := os.path.join(folder, name))), None)


def suffix(name: str) -> str:
    """With the dot, in lower case."""
    return os.path.splitext(name)[1].lower()


def listed_suffixes(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes)) or "none"


def as_text(path: str) -> str:
    """A path as a manifest holds it. Bytes that are no UTF-8, which parquet cannot hold, are escaped: such a file becomes
    one that is not found, and is reported with the bad ones."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Tree(NamedTuple):
    """What lies below a folder: `files` and `folders`, the folder itself among them, all with the folder's own path."""

    files: list[str]
    folders: list[str]


def walk(root: str, suffixes: Collection[str] = ()) -> Tree:
    """All files and folders below `root`, sorted, without hidden ones. Links are followed; a loop of links is entered once.

    Whatever is not a folder is listed as a file: also a link that leads nowhere, or a named pipe. A folder whose name ends
    in one of `suffixes` and which holds no such file can only be meant as a file, and is listed as one.

    Raises:
        UserError: a folder cannot be listed.
    """
    files: list[str] = []
    folders: list[str] = []

    def enter(folder: str, above: frozenset[tuple[int, int]]) -> None:
        looks_like_file = folder != root and suffix(folder) in suffixes
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if looks_like_file:
                files.append(folder)
                return
            raise UserError(f"{folder}: cannot be listed ({error.strerror}).") from error
        folders.append(folder)
        first = len(files)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                status = entry.stat() if entry.is_dir() else None
            except OSError:  # gone since it was listed
                status = None
            if status is None:
                files.append(entry.path)
            elif (status.st_dev, status.st_ino) not in above:
                enter(entry.path, above | {(status.st_dev, status.st_ino)})
        if looks_like_file and not any(suffix(name) in suffixes for name in files[first:]):
            files.insert(first, folder)

    top = os.stat(root)
    enter(root, frozenset({(top.st_dev, top.st_ino)}))
    return Tree(files, folders)


def list_files(root: str, suffixes: Collection[str] = ()) -> list[str]:
    """The files of `walk(root, suffixes)`."""
    return walk(root, suffixes).files


def _list_folder(root: str, suffixes: Collection[str]) -> list[Row]:
    all_files = list_files(root, suffixes)
    files = [path for path in all_files if suffix(path) in suffixes]
    shards = [path for path in all_files if suffix(path) == archives.SUFFIX]
    if not files and shards:
        return _list_archives(root, shards, suffixes)
    if not files:
        found = listed_suffixes({suffix(path) or "(no suffix)" for path in all_files})
        raise UserError(f"{root}: no file ends in {listed_suffixes(suffixes)} (found: {found}).")
    parents = [os.path.dirname(os.path.relpath(path, root)).replace(os.sep, "/") for path in files]
    tops = {parent.split("/", 1)[0] for parent in parents}
    splits = tops & set(SPLITS)
    if splits and tops - splits:
        others = ", ".join(sorted(top + "/" if top else "files" for top in tops - splits)[:5])
        raise UserError(
            f"{root}: {listed_suffixes(splits)} beside {others}. Keep all files in train/, val/ and test/, or none; "
            "or say in labels.csv (path,label,split) what is meant."
        )
    rows = []
    for path, parent in zip(files, parents, strict=True):
        split, _, label = parent.partition("/") if splits else ("", "", parent)
        rows.append(Row(as_text(path), as_text(label), split=split))
    return rows


def _list_archives(root: str, shards: list[str], suffixes: Collection[str]) -> list[Row]:
    """The rows of all archives below a folder; folders train/, val/, test/ at the top give the split."""
    tops = [os.path.relpath(path, root).split(os.sep)[0] for path in shards]
    splits = set(tops) & set(SPLITS)
    if splits and set(tops) - splits:
        raise UserError(
            f"{root}: {listed_suffixes(splits)} beside others. Keep all archives in train/, val/ and test/, or none."
        )
    return [
        row._replace(split=top if splits else "")
        for path, top in zip(shards, tops, strict=True)
        for row in webdataset.rows_of(path, suffixes)
    ]


def _read_table(path: str, suffixes: Collection[str]) -> list[Row]:
    from unveil.data import manifest_file  # which lists folders itself

    table, _ = manifest_file.read(path)
    rows = [Row(**line) for line in table.select(Row._fields).to_pylist()]
    rows = [row for row in rows if suffix(row.path) in suffixes]
    if not rows:
        raise UserError(f"{path}: none of its files ends in {listed_suffixes(suffixes)}.")
    return rows


def _read_list(path: str, suffixes: Collection[str]) -> list[Row]:
    rows = []
    for line, fields in read_labels(path):
        if suffix(fields["path"]) not in suffixes:
            raise UserError(
                f"{path}, line {line}, column path: {fields['path']} is not one of {listed_suffixes(suffixes)}."
            )
        rows.append(Row(**fields))
    return rows
