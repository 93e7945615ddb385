"""Files that lack a part of what a signal reads: clips without a sound track. They are left out before a run begins, and it is said."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Protocol, runtime_checkable

from unveil.data.manifest import Manifest
from unveil.data.signal import Signal
from unveil.errors import UserError

READERS = 8
"""Threads that look at headers; they mostly wait for the disk."""


@runtime_checkable
class Demanding(Protocol):
    """A signal of which some files that are named like it hold only a part."""

    remedy: ClassVar[str]
    """What can be done about such files, in words."""

    def lacks(self, path: str, has_audio: bool | None = None) -> str:
        """What a file lacks, in words; "" for nothing. `has_audio`: what was measured of it, where it was."""
        ...


def lacking(manifest: Manifest, signal: Signal) -> dict[str, str]:
    """What files lack, by their paths; of those that were checked it is known, of the others the header is read."""
    if not isinstance(signal, Demanding):
        return {}
    bad = {path for path, _ in manifest.bad_files()}
    paths = manifest.column("path")
    known = manifest.column("has_audio") if "has_audio" in manifest.table.column_names else [None] * len(paths)
    files = {path: sound for path, sound in zip(paths, known, strict=True) if path not in bad}
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(signal.lacks, files, files.values())
        return {path: lack for path, lack in zip(files, found, strict=True) if lack}


def complete(manifest: Manifest, signal: Signal, say: Callable[[str], None]) -> tuple[Manifest, int]:
    """The rows of files that lack nothing, and how many files are left out; of these a sentence is said.

    Args:
        manifest: of the files.
        signal: that reads them.
        say: told how many files are left out, and which is the first.

    Raises:
        UserError: all files lack something.
    """
    lacks = lacking(manifest, signal)
    if not lacks:
        return manifest, 0
    first, what = next(iter(lacks.items()))
    paths = manifest.column("path")
    count = len(set(paths))
    assert isinstance(signal, Demanding)
    if len(lacks) == count:
        raise UserError(f"all {count} files have {what}, {first} for one: {signal.remedy}.")
    say(f"{len(lacks)} of {count} files have {what} and are left out ({signal.remedy}); the first: {first}")
    return manifest.select([path not in lacks for path in paths]), len(lacks)
