"""A row of the manifest: a file, or a segment of one."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("caption", pa.string()),
    ]
)
WEIGHT = pa.field("weight", pa.float64())
"""Of a row of several folders together: how often it is seen in an epoch, on average. Without the column each is seen once."""


class Row(NamedTuple):
    """A file, or the part of it from `start` to `end` (seconds; None: from its beginning, to its end).

    `label`: several are joined by ";", "" for none. `split`: "", "train", "val" or "test". `group`: rows of one group
    are never divided between training and validation; "" for none but its own file. `caption`: a text beside the signal, ""
    for none; a file with several has as many rows.
    """

    path: str
    label: str = ""
    start: float | None = None
    end: float | None = None
    split: str = ""
    group: str = ""
    caption: str = ""


def label_names(label: str) -> list[str]:
    """The labels that are joined in `label` by ";"."""
    return [name for part in label.split(";") if (name := part.strip())]
