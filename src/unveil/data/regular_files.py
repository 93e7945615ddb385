"""Only regular files are read as media: a named pipe would block for ever, a device never end."""

from __future__ import annotations

import os
import stat

from unveil.data import archives
from unveil.errors import DecodeError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises DecodeError unless `path` is a file (or a link to one) that exists and is not empty; never blocks.

    A member of an archive is one, too: see `archives`.
    """
    if (inside := archives.member(path)) is not None:
        if not inside[1].size:
            raise DecodeError(f"{path}: is empty (0 bytes).")
        return
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DecodeError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(f"{path}: is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something special')}, not a file.")
    if not status.st_size:
        raise DecodeError(f"{path}: is empty (0 bytes).")
