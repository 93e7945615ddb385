"""`unveil data check`: every file decoded once, from beginning to end, and written down in manifest.parquet."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from unveil.data import archives, manifest_file
from unveil.data.checked import Checked
from unveil.data.listing import suffix
from unveil.data.manifest import Manifest
from unveil.data.processes import Failed, cores, each, stoppable
from unveil.data.progress import FileProgress
from unveil.data.regular_files import check_regular
from unveil.data.signal import Signal
from unveil.data.signals import SIGNALS, owner
from unveil.errors import DecodeError, UserError
from unveil.storage import mend_lines, naming, read_lines

SUFFIXES = frozenset().union(*(signal.suffixes for signal in SIGNALS))
SECONDS = 60.0
BYTES_PER_SECOND = 100_000
"""A file may take `SECONDS`, and a second more for each so many bytes: a fifth of what one slow core needs for 4K HEVC."""


@dataclass
class Record:
    """What is known of a file: the measured columns of the manifest."""

    hash: str | None = None
    duration: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    has_audio: bool | None = None
    points: int | None = None
    rate: int | None = None
    channels: int | None = None
    peak: float | None = None
    size: int | None = None
    mtime_ns: int | None = None
    error: str | None = None

    def of(self, other: Record) -> bool:
        """Whether size and time say that the file is the one of another record."""
        return self.mtime_ns is not None and (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass
class _Target:
    """A manifest to write, and what goes into it."""

    file: str
    folders: list[str]
    sources: list[dict[str, Any]]
    rows: Manifest

    @property
    def folder(self) -> str:
        return os.path.dirname(self.file)

    @property
    def journal(self) -> str:
        """What was measured so far, a line for each file: a check that is killed loses nothing."""
        return os.path.join(self.folder, f".{os.path.basename(self.file)}.partial")

    def remembered(self) -> dict[str, Record]:
        """By path: the good files of the manifest that is there, and all of a check that was cut off.

        Bad files are tried again: a mended permission, or more memory, leaves no trace in a file's size and time.
        """
        found: dict[str, Record] = {}
        names = [field.name for field in fields(Record)]
        if os.path.exists(self.file):
            table, _ = manifest_file.read(self.file)
            if all(name in table.column_names for name in names):
                for row in table.select(["path", *names]).to_pylist():
                    path = row.pop("path")
                    if row["error"] is None:
                        found[path] = Record(**row)
        for line in read_lines(Path(self.journal)):
            path = os.path.join(self.folder, line.pop("path"))
            found[path] = Record(**{name: line.get(name) for name in names})
        return found


def check(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    workers: int = -1,
    timeout: float | None = None,
    recheck: bool = False,
    quiet: bool = False,
) -> Checked:
    """Decode every file once and write what was found: FOLDER/manifest.parquet.

    Files are decoded in processes of their own: one that hangs, crashes its decoder or swallows the memory gets its error
    like any other bad file, and the rest goes on. What was measured is kept whatever happens, and a file that was good is
    not decoded again while its size and time are the same.

    Args:
        folders: of media files, each read as by `Manifest.scan`.
        out: one manifest of all folders instead; they must lie below its folder.
        workers: processes; -1 for one per core.
        timeout: seconds a file may take; None: a minute, and a second more for each 100 kB.
        recheck: decode all files again.
        quiet: show no progress.

    Raises:
        UserError: no such folder, no media in it, or it cannot be written to.
    """
    targets = _targets([os.path.abspath(folder) for folder in folders], out)
    records: dict[str, Record] = {}
    of_path: dict[str, _Target] = {}
    pending: list[str] = []
    unchanged = 0
    for target in targets:
        known = {} if recheck else target.remembered()
        for path in target.rows.table["path"].unique().to_pylist():
            if path in records:
                continue
            of_path[path] = target
            records[path] = record = status(path)
            if record.error is None:
                before = known.get(path)
                if before is not None and before.of(record):
                    records[path] = before
                    unchanged += 1
                else:
                    pending.append(path)
    pending.sort(key=lambda path: -(records[path].size or 0))  # the longest first: none runs on alone at the end
    size = sum(records[path].size or 0 for path in pending)
    seconds = {path: timeout or SECONDS + (records[path].size or 0) / BYTES_PER_SECOND for path in pending}

    with _journals(targets, keep=not recheck) as write:
        with FileProgress(len(pending), size, "decoded", quiet) as progress, stoppable(quiet):
            processes = cores() if workers < 0 else max(1, workers)
            for path, result in each(measure, pending, processes, seconds.__getitem__):
                before = records[path]
                found = Record(error=words(result.error, path)) if isinstance(result, Failed) else result
                found.size, found.mtime_ns = before.size, before.mtime_ns  # from before: a change since shows next time
                records[path] = found
                write(of_path[path], path, found)
                progress.advance(before.size or 0, found.error is not None)
        for target in targets:
            manifest_file.write(_measured(target.rows, records), target.file, target.sources)
    for target in targets:
        manifest_file.stamp(target.file, target.sources)
    tables = [_measured(target.rows, records) for target in targets]
    return Checked(
        Manifest(pa.concat_tables(tables)),
        files=[target.file for target in targets],
        unchanged=unchanged,
        empty_folders=[name for target in targets for name in _empty_folders(target)],
    )


def measure(path: str) -> Record:
    """Hash and decode a file; in a process of its own."""
    record = Record(hash=content_hash(path))
    try:
        for name, value in signal_for(path).measure(path)._asdict().items():
            setattr(record, name, value)
    except Exception as error:  # whatever a decoder makes of a broken file; the content is known all the same
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        record.error = words(text, path)
    return record


def signal_for(path: str) -> type[Signal]:
    """The kind of signal that a file is named as: a file that was listed by its suffix has one."""
    kind = owner(path)
    assert kind is not None, path
    return kind


def content_hash(path: str) -> str:
    """BLAKE2b of a file's content, 32 hexadecimal digits.

    Raises:
        DecodeError: it cannot be read.
    """
    try:
        with archives.opened(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}") from error


def status(path: str) -> Record:
    """Size and time of a file, or why it is none. (Merely opening a named pipe would wait for ever.)"""
    try:
        check_regular(path)
        size, mtime_ns = archives.status(path)
    except (OSError, DecodeError) as error:
        if os.path.islink(path) and not os.path.exists(path):
            return Record(error="a link that leads nowhere")
        return Record(error=words(str(error), path))
    return Record(size=size, mtime_ns=mtime_ns)


def words(error: str, path: str) -> str:
    """A decoder's message without the file's name, which stands beside it and may be moved."""
    short = error.removeprefix(f"{path}: ").replace(f" {path!r}", "").replace(path, os.path.basename(path))
    return short.strip() or "cannot be decoded"


def _targets(folders: list[str], out: str | os.PathLike[str] | None) -> list[_Target]:
    if not folders:
        raise UserError("unveil data check needs a folder. For example: unveil data check clips/")
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such folder. `unveil data check` takes folders of media files.")
    folders = list(dict.fromkeys(folders))
    if out is None:
        return [_target(os.path.join(folder, manifest_file.NAME), [folder]) for folder in folders]
    file = os.path.abspath(out)
    if suffix(file) != ".parquet":
        raise UserError(f"--out {out}: a manifest is a .parquet file.")
    outside = [
        folder for folder in folders if os.path.commonpath([os.path.dirname(file), folder]) != os.path.dirname(file)
    ]
    if outside:
        raise UserError(
            f"--out {out}: {outside[0]} is not below its folder, and a manifest names no files outside its own. "
            "Write it above the files."
        )
    return [_target(file, folders)]


def _target(file: str, folders: list[str]) -> _Target:
    if os.path.exists(file) and not manifest_file.is_own(file):
        raise UserError(
            f"{file} was not written by `unveil data check`, which would replace it. Rename it; labels and splits "
            "that only it knows can be written as labels.csv."
        )
    base = os.path.dirname(file)
    # Before the files are listed: what changes from here on is a change.
    sources = [manifest_file.survey(folder, base, SUFFIXES) for folder in folders]
    return _Target(file, folders, sources, Manifest.scan(folders, SUFFIXES, anew=True))


@contextmanager
def _journals(targets: list[_Target], keep: bool) -> Iterator[Any]:
    """Yield `write(target, path, record)`; the journals are deleted when all is done."""
    files = {}
    try:
        for target in targets:
            try:
                mend_lines(Path(target.journal))
                files[target.journal] = open(target.journal, "a" if keep else "w", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                raise UserError(
                    f"{target.folder} cannot be written to ({error.strerror}): name a manifest elsewhere above the files with --out."
                ) from error

        def write(target: _Target, path: str, record: Record) -> None:
            line = {"path": os.path.relpath(path, target.folder), **asdict(record)}
            file = files[target.journal]
            try:
                file.write(json.dumps(line) + "\n")
                file.flush()
            except OSError as error:
                raise UserError(f"{target.journal}: {error.strerror}. The files measured so far are kept.") from error

        yield write
    finally:
        for journal, file in files.items():
            with naming(Path(journal)):  # what could not be written is tried again here
                file.close()
    for target in targets:
        os.unlink(target.journal)


def _measured(rows: Manifest, records: dict[str, Record]) -> pa.Table:
    table = rows.table
    found = [records[path] for path in table["path"].to_pylist()]
    for field in manifest_file.MEASURED:
        table = table.append_column(field, pa.array([getattr(record, field.name) for record in found], field.type))
    return table


def _empty_folders(target: _Target) -> list[str]:
    """Folders in which and below which no file is: a class that was forgotten."""
    covered: set[str] = set()
    for path in target.rows.table["path"].unique().to_pylist():
        covered.add(path)
        while (path := os.path.dirname(path)) not in covered and len(path) >= len(target.folder):
            covered.add(path)
    inner = [
        os.path.normpath(os.path.join(target.folder, source["folder"], folder))
        for source in target.sources
        for folder in source.get("folders", {})
    ]
    return [folder for folder in inner if folder not in covered and os.path.dirname(folder) in covered]
