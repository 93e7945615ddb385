"""`unveil data prepare`: a folder of files encoded anew, into another, for fast random access."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import av
import pyarrow as pa
from filelock import FileLock, Timeout

from unveil.data import manifest_file
from unveil.data.check import SUFFIXES, Record, content_hash, signal_for, status, words
from unveil.data.checked import MOST
from unveil.data.encode import Encoding, cloud_name, encode_cloud, encode_image, image_name, video_name
from unveil.data.encode_sound import encode_sound, sound_name
from unveil.data.encode_video import encode_video
from unveil.data.labels_csv import COLUMNS
from unveil.data.manifest import Manifest
from unveil.data.processes import Failed, cores, each, stoppable
from unveil.data.progress import FileProgress
from unveil.data.signals import Image, Points, Video
from unveil.data.sound import Sound
from unveil.errors import DecodeError, UserError
from unveil.storage import mend_lines, read_lines, replacing

JOURNAL = "prepare.jsonl"
LOCK = ".prepare.lock"
SECONDS = 120.0
BYTES_PER_SECOND = 10_000
"""A file may take `SECONDS`, and a second more for each so many of its bytes."""

ENCODERS: dict[type, tuple[Callable[[str, str, Encoding], int], Callable[[str], str]]] = {
    Video: (encode_video, video_name),
    Image: (encode_image, image_name),
    Points: (encode_cloud, cloud_name),
    Sound: (encode_sound, sound_name),
}
"""How files of a signal are encoded, and what they are called then."""

# Of the disk, not of the source: no other file would fare better.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@dataclass
class Job:
    """A file to be made: `source` → `target`, absolute paths."""

    source: str
    target: str
    how: Encoding


@dataclass
class Outcome:
    """What became of a file: what was measured of the new one; or why the disk would take no more."""

    record: Record
    full: str | None = None


@dataclass
class Prepared:
    """What was done.

    Args:
        out: the folder.
        manifest: of the files made, and of those that could not be.
        made, unchanged: files encoded now, and before.
        before, after: bytes of the good files, and of what was made of them.
    """

    out: str
    manifest: Manifest
    made: int
    unchanged: int
    before: int
    after: int

    @cached_property
    def bad(self) -> list[tuple[str, str]]:
        """The files that could not be encoded: (path that it would have, why)."""
        return self.manifest.bad_files()

    def sentences(self) -> Iterator[tuple[str, str]]:
        """(style, text), for the screen."""
        again = f" ({self.unchanged:,} as they were)" if self.unchanged else ""
        yield (
            "",
            f"{self.made + self.unchanged:,} files prepared{again}: {_size(self.before)} became {_size(self.after)}",
        )
        if self.bad:
            yield "red", f"{len(self.bad):,} could not be:"
            yield from (("", f"  {error}") for _, error in self.bad[:MOST])
            if self.bad[MOST:]:
                yield "", f"  and {len(self.bad) - MOST:,} more; the column error of the manifest has all"
        yield "", f"written to {self.out}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def prepare(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    how: Encoding | None = None,
    workers: int = -1,
    timeout: float | None = None,
    quiet: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Prepared:
    """Encode all files of a folder into another, which has the same tree, its own labels.csv and a manifest.

    Each file is made under another name and renamed when it is whole and was decoded to its end. `OUT/prepare.jsonl` says
    what was made from what; a file whose source and settings are the same is not made again. Sources are only read.

    Args:
        folder: as for `Manifest.scan`.
        out: neither in `folder` nor around it; empty, new, or made by this function.
        how: sizes and rates.
        workers: processes; -1 for one per core.
        timeout: seconds a file may take; None: two minutes, and a second more for each 10 kB.
        quiet: show no progress.
        warn: told when the folder changed since its manifest was made.

    Raises:
        UserError: no such folder, `out` holds something else, the disk is full.
    """
    how = how or Encoding()
    folder, out = os.path.abspath(folder), os.path.abspath(out)
    _refuse_overlap(folder, out)
    listed = Manifest.scan([folder], SUFFIXES, warn)
    known_bad = {path: error.removeprefix(f"{path}: ") for path, error in listed.bad_files()}
    targets = _targets(listed, folder, out)
    with _journal(out) as journal:
        done = _remembered(out)
        settings = asdict(how)
        sources = {path: status(path) for path in targets}
        results: dict[str, Record] = {}
        pending: list[Job] = []
        for path, target in targets.items():
            entry = done.get(os.path.relpath(path, folder))
            if known_bad.get(path) or sources[path].error:
                results[path] = Record(error=known_bad.get(path) or sources[path].error)
            elif entry and _is_done(entry, sources[path], target, out, settings):
                results[path] = Record(**entry["record"])
            else:
                pending.append(Job(path, target, how))
        unchanged = sum(record.error is None for record in results.values())
        pending.sort(key=lambda job: -(sources[job.source].size or 0))
        _refuse_links_out(out, pending)
        total = sum(sources[job.source].size or 0 for job in pending)
        processes = cores() if workers < 0 else max(1, workers)

        def limit(job: Job) -> float:
            return timeout or SECONDS + (sources[job.source].size or 0) / BYTES_PER_SECOND

        with FileProgress(len(pending), total, "prepared", quiet) as progress, stoppable(quiet):
            for job, result in each(make, pending, processes, limit):
                outcome = result if isinstance(result, Outcome) else _failed(result, job)
                if outcome.full:
                    raise UserError(
                        f"{out}: {outcome.full}. What is made so far is kept; the same command goes on from here."
                    )
                results[job.source] = outcome.record
                if outcome.record.error is None:
                    _write_entry(journal, job, sources[job.source], outcome.record, folder, out, settings)
                progress.advance(sources[job.source].size or 0, outcome.record.error is not None)
        manifest = _finish(listed, folder, out, targets, results)
    good = [path for path, record in results.items() if record.error is None]
    return Prepared(
        out,
        manifest,
        made=len(good) - unchanged,
        unchanged=unchanged,
        before=sum(sources[path].size or 0 for path in good),
        after=sum(results[path].size or 0 for path in good),
    )


def make(job: Job) -> Outcome:
    """Encode a file and decode what was written; in a process of its own."""
    signal = signal_for(job.source)
    encode, _ = ENCODERS[signal]
    try:
        with replacing(Path(job.target)) as temporary:
            written = encode(job.source, os.fspath(temporary), job.how)
            record = _measure_made(signal, os.fspath(temporary), written, job)
        made = os.stat(job.target)
        return Outcome(replace(record, size=made.st_size, mtime_ns=made.st_mtime_ns))
    except DecodeError as error:
        return Outcome(Record(error=words(str(error), job.source)))
    except (OSError, av.FFmpegError) as error:  # of the encoder, or of the disk: the source's are DecodeErrors
        text = error.strerror or str(error)
        if error.errno in _OF_THE_DISK:
            return Outcome(Record(), full=f"{os.path.relpath(job.target)} cannot be written ({text})")
        return Outcome(Record(error=f"cannot be encoded: {text}"))


def _measure_made(signal: Any, path: str, written: int, job: Job) -> Record:
    try:
        measured = signal.measure(path)
    except DecodeError as error:
        raise DecodeError(f"{job.source}: what was made of it cannot be decoded: {words(str(error), path)}") from error
    if measured.frames is not None and measured.frames != written:
        raise DecodeError(f"{job.source}: {measured.frames} of {written} frames arrived.")
    if measured.rate and measured.duration is not None and round(measured.duration * measured.rate) != written:
        arrived = round(measured.duration * measured.rate)
        raise DecodeError(f"{job.source}: {arrived} of {written} samples of sound arrived.")
    return Record(hash=content_hash(path), **measured._asdict())


def _failed(result: Any, job: Job) -> Outcome:
    assert isinstance(result, Failed)
    return Outcome(Record(error=words(result.error, job.source)))


# ---- what is where


def _refuse_overlap(folder: str, out: str) -> None:
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder. `unveil data prepare` takes a folder of media files.")
    inner, outer = os.path.realpath(folder), os.path.realpath(out)
    if _below(inner, outer) or _below(outer, inner):
        raise UserError(
            f"--out {out} and {folder} lie in one another: name a folder apart, so that no source is overwritten."
        )


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _refuse_links_out(out: str, jobs: list[Job]) -> None:
    """A link in the output that leads elsewhere (to the sources, say) would let files be written there."""
    root = os.path.realpath(out)
    for directory in {os.path.dirname(job.target) for job in jobs}:
        if not _below(os.path.realpath(directory), root):
            raise UserError(f"{directory} is a link that leads out of --out {out}: remove it, or name another folder.")
    for job in jobs:
        if _below(os.path.realpath(job.source), root):
            raise UserError(f"{job.source} is a link into --out {out}: remove it, or name another folder.")


def _targets(listed: Manifest, folder: str, out: str) -> dict[str, str]:
    """Source → target. Where two sources would get one name (a.avi, a.mov), both keep their suffix before the new one."""
    paths = listed.table["path"].unique().to_pylist()
    short = {path: ENCODERS[signal_for(path)][1](os.path.relpath(path, folder)) for path in paths}
    count = Counter(name.lower() for name in short.values())
    targets: dict[str, str] = {}
    for path, name in short.items():
        if count[name.lower()] > 1:
            name = os.path.relpath(path, folder) + os.path.splitext(name)[1]
        targets[path] = os.path.join(out, name)
    return targets


# ---- what was done before


@contextmanager
def _journal(out: str) -> Iterator[TextIO]:
    """OUT/prepare.jsonl, opened to be added to, by one process at a time; and a clean folder."""
    file = os.path.join(out, JOURNAL)
    if os.path.isdir(out) and not os.path.isfile(file) and os.listdir(out):
        raise UserError(f"--out {out} holds other files and was not made by `unveil data prepare`: name a new folder.")
    try:
        os.makedirs(out, exist_ok=True)
        journal = open(file, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}.") from error
    lock = FileLock(os.path.join(out, LOCK))
    with journal:
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"--out {out}: another `unveil data prepare` is at work there.") from error
        mend_lines(Path(file))
        for folder, _, names in os.walk(out):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):  # of a run that was killed
                    os.unlink(os.path.join(folder, name))
        try:
            yield journal
        finally:
            lock.release()


def _remembered(out: str) -> dict[str, dict[str, Any]]:
    return {entry["source"]: entry for entry in read_lines(Path(out, JOURNAL)) if "source" in entry}


def _write_entry(
    journal: TextIO, job: Job, source: Record, made: Record, folder: str, out: str, settings: dict[str, Any]
) -> None:
    entry = {
        "source": os.path.relpath(job.source, folder),
        "size": source.size,
        "mtime_ns": source.mtime_ns,
        "target": os.path.relpath(job.target, out),
        "settings": settings,
        "record": asdict(made),
    }
    try:
        journal.write(json.dumps(entry) + "\n")
        journal.flush()
    except OSError as error:
        raise UserError(
            f"{out}: {JOURNAL} cannot be written ({error.strerror}). What is made so far is kept."
        ) from error


def _is_done(entry: dict[str, Any], source: Record, target: str, out: str, settings: dict[str, Any]) -> bool:
    made = status(target)
    same_source = (entry["size"], entry["mtime_ns"]) == (source.size, source.mtime_ns)
    same_target = entry["target"] == os.path.relpath(target, out)
    return same_source and same_target and entry["settings"] == settings and Record(**entry["record"]).of(made)


# ---- the end


def _finish(listed: Manifest, folder: str, out: str, targets: dict[str, str], results: dict[str, Record]) -> Manifest:
    """Write labels.csv, where there was one, and the manifest."""
    table = listed.table.select(manifest_file.SCHEMA.names)
    paths = table["path"].to_pylist()
    table = table.set_column(
        0, manifest_file.SCHEMA.field("path"), pa.array([targets[path] for path in paths], pa.string())
    )
    records = [results[path] for path in paths]
    for field in manifest_file.MEASURED:
        values = [getattr(record, field.name) for record in records]
        if field.name == "error":  # the row names a file that was not made
            values = [error and f"{error} Its source: {path}" for error, path in zip(values, paths, strict=True)]
        table = table.append_column(field, pa.array(values, field.type))
    manifest = Manifest(table)
    file = os.path.join(out, manifest_file.NAME)
    try:
        if os.path.isfile(os.path.join(folder, "labels.csv")):
            _write_labels(manifest.readable(), out)
        sources = [manifest_file.survey(out, out, SUFFIXES)]
        manifest_file.write(table, file, sources)
        manifest_file.stamp(file, sources)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}. What is made so far is kept.") from error
    return manifest


def _write_labels(manifest: Manifest, out: str) -> None:
    """The good rows: a list names no file that is not there."""
    with replacing(Path(out, "labels.csv")) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = COLUMNS if manifest.captioned else COLUMNS[:-1]
        writer.writerow(columns)
        for row in manifest:
            path = os.path.relpath(row.path, out).replace(os.sep, "/")
            writer.writerow([path, *("" if value is None else value for value in row[1 : len(columns)])])
