"""`labels.csv`: path,label[,start,end,split,group,caption], one line for each file or segment; `captions.csv`: image,caption."""

from __future__ import annotations

import csv
import difflib
import math
import os
from collections.abc import Iterator
from typing import Any

from unveil.errors import UserError

COLUMNS = ("path", "label", "start", "end", "split", "group", "caption")
#: Other names of columns.
ALIASES = {"image": "path", "filepath": "path", "text": "caption"}
FORM = "the first line must be path,label[,start,end,split,group,caption] or image,caption"


def read_labels(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a list of labels as (line number, fields of a manifest row).

    Paths are relative to the list, and stay below its folder: a list from elsewhere is not to name other files of this
    machine. `start` and `end` are seconds, empty for the file's own. An empty label is none.
    Where captions stand beside the files' names, the files may also lie in `images/` beside the list; of a caption that is no
    UTF-8, U+FFFD stands for what is not.

    Raises:
        UserError: naming the line and the column.
    """
    folder = os.path.dirname(os.path.abspath(file))
    empty = True
    try:
        # utf-8-sig: spreadsheets put a byte-order mark in front.
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            header = [ALIASES.get(name, name) for name in header]
            _check_header(file, header)
            exists: dict[str, bool] = {}
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{file}, line {reader.line_num}: {len(cells)} columns where the header has {len(header)} "
                        "(put a text that holds commas in quotes)."
                    )
                empty = False
                line = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
                if strange := next((n for n, cell in line.items() if n != "caption" and not _is_text(cell)), None):
                    raise UserError(
                        f"{file}: cannot be read as CSV in UTF-8 (line {reader.line_num}, column {strange})."
                    )
                yield reader.line_num, _fields(f"{file}, line {reader.line_num}", folder, line, exists)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as CSV in UTF-8 ({error}).") from error
    if empty:
        raise UserError(f"{file}: has no lines below its header.")


def _is_text(cell: str) -> bool:
    """Whether all of it was UTF-8."""
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_header(file: str, header: list[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1)
            raise UserError(f"{file}, line 1: unknown column {name!r}{f' ({near[0]}?)' if near else ''}; {FORM}.")
        if header.count(name) > 1:
            raise UserError(f"{file}, line 1: column {name!r} appears twice; {FORM}.")
    for name in ["path"] if "caption" in header else ["path", "label"]:
        if name not in header:
            raise UserError(f"{file}, line 1: no column {name!r}; {FORM}.")


def _fields(place: str, folder: str, line: dict[str, str], exists: dict[str, bool]) -> dict[str, Any]:
    if not line["path"]:
        raise UserError(f"{place}, column path: is empty.")
    relative = os.path.normpath(line["path"])
    if "\0" in relative or os.path.isabs(relative) or relative.split(os.sep, 1)[0] == os.pardir:
        raise UserError(
            f"{place}, column path: {line['path']!r} leaves the folder of the list. Paths are relative to it and stay below "
            "it: put the list above the files, or link their folder into its own."
        )
    path = os.path.join(folder, relative)
    if "caption" in line and path not in exists and not os.path.lexists(path):
        beside = os.path.join(folder, "images", relative)
        path = beside if os.path.lexists(beside) else path
    if path not in exists:  # segments name the same file over and over
        exists[path] = os.path.lexists(path)  # what is there but no readable file is found out by reading it
    if not exists[path]:
        raise UserError(f"{place}, column path: no such file {path}.")
    split = line.get("split", "").lower()
    if split not in ("", "train", "val", "test"):
        raise UserError(f"{place}, column split: {split!r} is none of train, val, test.")
    start, end = _seconds(place, "start", line), _seconds(place, "end", line)
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{place}, column end: {end} is not after the start, {start or 0.0}.")
    group = line.get("group", "")
    caption = line.get("caption", "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return {
        "path": path, "label": line.get("label", ""), "start": start, "end": end, "split": split, "group": group,
        "caption": caption,
    }  # fmt: skip


def _seconds(place: str, name: str, line: dict[str, str]) -> float | None:
    text = line.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{place}, column {name}: {text!r} is not a number of seconds.")
    return value
