"""Archives as webdataset writes them → rows: members of one name but for what follows its first dot are one sample."""

from __future__ import annotations

import json
import os
from collections.abc import Collection

from unveil.data import archives
from unveil.data.row import Row
from unveil.errors import UserError

TEXTS = (".txt", ".caption")
LABEL = ".cls"
RECORD = ".json"
LARGEST_TEXT = 2**20
"""Bytes of a caption, a label or a record; a longer one is no text that belongs to a picture."""


def rows_of(archive: str, suffixes: Collection[str]) -> list[Row]:
    """The samples of an archive: `0001.jpg` with its caption in `0001.txt`, or under "caption" or "text" in `0001.json`, and its
    label in `0001.cls`; each of them may be missing.

    Args:
        archive: absolute.
        suffixes: of the files that are meant, with the dot, in lower case.

    Raises:
        UserError: the archive is damaged, or holds no such file.
    """
    members = archives.members(archive)
    signals: dict[str, str] = {}
    beside: dict[str, archives.Member] = {}
    for name, member in members.items():
        ending = _ending(name)
        if ending in suffixes:
            signals.setdefault(_key(name), name)
        elif ending in (*TEXTS, LABEL, RECORD) and member.size <= LARGEST_TEXT:
            beside[name] = member
    if not signals:
        found = sorted({_ending(name) or "(no suffix)" for name in members})[:8]
        raise UserError(f"{archive}: no file in it ends in {', '.join(sorted(suffixes))} (found: {', '.join(found)}).")
    texts: dict[tuple[str, str], str] = {}
    for name, content in archives.contents(archive, beside):
        texts[_key(name), _ending(name)] = content.decode(
            "utf-8", "replace"
        )  # what is no UTF-8 is found when it is used
    rows = []
    for key, name in signals.items():
        caption = next((texts[key, ending] for ending in TEXTS if (key, ending) in texts), None)
        if caption is None:
            caption = _of_record(texts.get((key, RECORD), ""))
        label = texts.get((key, LABEL), "").strip()
        rows.append(Row(os.path.join(archive, *name.split("/")), label, caption=" ".join(caption.split())))
    return rows


def _of_record(text: str) -> str:
    try:
        record = json.loads(text) if text else {}
    except ValueError:
        return ""
    found = (record.get(name) for name in ("caption", "text")) if isinstance(record, dict) else ()
    return next((value for value in found if isinstance(value, str)), "")


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _ending(name: str) -> str:
    """What follows the last dot, in lower case; `.seg.png` is another's picture, and no sample's own."""
    _, dot, endings = name.rpartition("/")[2].partition(".")
    return (dot + endings).lower()
