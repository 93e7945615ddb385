"""Files inside tar archives, read in place: nothing is unpacked.

A member is named as if the archive were a folder: `shards/000.tar/0001.jpg`. Where it lies is found out once by each process
that asks: from headers alone, so that a name in an archive never names a file outside it.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from unveil.errors import DecodeError, UserError

SUFFIX = ".tar"


class Member(NamedTuple):
    """Where the bytes of a member lie in its archive."""

    offset: int
    size: int


def members(archive: str | os.PathLike[str]) -> Mapping[str, Member]:
    """The regular files of an archive, in its order; links, devices and folders in it are passed over.

    Raises:
        UserError: no archive, a compressed or damaged one, a name that leaves it, or the same name twice.
    """
    status = os.stat(archive)
    return _members(os.fspath(archive), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _members(archive: str, size: int, mtime_ns: int) -> Mapping[str, Member]:
    found: dict[str, Member] = {}
    try:
        with tarfile.open(archive, "r:") as opened:
            for entry in opened:
                opened.members = []  # type: ignore[attr-defined]  # or it would keep every header
                if not entry.isreg() or entry.issparse():
                    continue
                name = _inside(archive, entry.name)
                if name in found:
                    raise UserError(f"{archive}: holds {name} twice; write the archive anew with different names.")
                if entry.offset_data + entry.size > size:
                    raise UserError(f"{archive}: is cut off within {name}; copy or download it again.")
                found[name] = Member(entry.offset_data, entry.size)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{archive}: cannot be read as a tar archive ({error}). A compressed one is unpacked by gunzip first; a damaged one "
            "has to be copied or downloaded again."
        ) from error
    if not found:
        raise UserError(f"{archive}: holds no files.")
    return found


def _inside(archive: str, name: str) -> str:
    plain = posixpath.normpath(name)
    if plain.startswith("/") or plain.split("/", 1)[0] == ".." or "\0" in plain or "\\" in plain:
        raise UserError(f"{archive}: the name {name!r} in it leaves the archive; it is not read.")
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def divided(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """An archive and a name in it, where a path names a member; None where it names a file of its own."""
    text = os.fspath(path).replace(os.sep, "/")
    at = text.find(SUFFIX + "/")
    while at >= 0:
        archive = text[: at + len(SUFFIX)]
        if os.path.isfile(archive):
            return archive, text[at + len(SUFFIX) + 1 :]
        at = text.find(SUFFIX + "/", at + 1)
    return None


def member(path: str | os.PathLike[str]) -> tuple[str, Member] | None:
    """The archive that a path leads into, and where its member lies; None for a file of its own.

    Raises:
        DecodeError: the archive cannot be read, or has no such member.
    """
    parts = divided(path)
    if parts is None:
        return None
    archive, name = parts
    try:
        found = members(archive).get(name)
    except UserError as error:
        raise DecodeError(str(error)) from error
    if found is None:
        raise DecodeError(f"{path}: there is no such file in the archive.")
    return archive, found


def status(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of modification in nanoseconds; of a member its own size and its archive's time.

    Raises:
        DecodeError, OSError: see `opened`.
    """
    inside = member(path)
    found = os.stat(path if inside is None else inside[0])
    return found.st_size if inside is None else inside[1].size, found.st_mtime_ns


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader | io.BytesIO]:
    """A file, or a member of an archive, for reading.

    Raises:
        DecodeError: see `member`.
        OSError: it cannot be opened.
    """
    inside = member(path)
    if inside is None:
        with open(path, "rb") as file:
            yield file
        return
    archive, (offset, size) = inside
    with open(archive, "rb") as file:
        file.seek(offset)
        yield io.BytesIO(file.read(size))


def contents(archive: str, wanted: Mapping[str, Member]) -> Iterator[tuple[str, bytes]]:
    """The bytes of several members, in the order of the archive."""
    with open(archive, "rb") as file:
        for name, (offset, size) in sorted(wanted.items(), key=lambda item: item[1].offset):
            file.seek(offset)
            yield name, file.read(size)
