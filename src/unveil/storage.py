"""Files written so that a kill or a power cut leaves the old one or the new one, and JSON in them.

`training.guards.writing` turns the OSErrors of a full disk, which name their file here, into sentences for a person.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to the disk and takes its place in one step.

    A reader, or a power cut, sees the old file or the new one and never a part. The folder is flushed too: the rename
    itself is data of the folder.

    Raises:
        OSError: with `path` for its file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that only their owner can read; a run folder is shared
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What fails while `path` is written is an OSError that says so: most writers tell a number and no name."""
    try:
        yield
    except OSError as error:
        other = error.filename is not None and not Path(str(error.filename)).name.startswith(f".{path.name}.")
        if error.errno is None or other:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        # safetensors is written in Rust, whose errors hold the system's in their text; before 0.7 as `Os { code: 28, …`.
        number = re.search(r"(?:\(os error |Os \{ code: )(\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        # A file name may hold bytes that are no UTF-8 (surrogates in Python); a backslash escape is valid JSON.
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """JSON lines, in one step."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def mend_lines(path: Path) -> None:
    """Cut off what a kill left of a last line: the next one would be written on to it, and no line after it be read."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
