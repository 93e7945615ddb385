"""Small folders of pictures with captions, in every form in which they come."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PNG_NAMES = [f"{number:03d}.png" for number in range(16)]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}


def picture(colour: str, seed: int, side: int = 24) -> bytes:
    """A PNG of one colour with a little noise."""
    noise = np.random.default_rng(seed).integers(-20, 20, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pairs(count: int) -> list[tuple[str, bytes, list[str]]]:
    """Name, picture, two captions each."""
    found = []
    for number in range(count):
        colour = list(COLOURS)[number % len(COLOURS)]
        found.append((f"{number:03d}.png", picture(colour, number), [f"a {colour} square", f"all of it is {colour}"]))
    return found


def write_folder(folder: Path, count: int = 8, kind: str = "csv", inside: str = "images") -> Path:
    """Pictures with a list of captions beside: captions.csv or captions.parquet."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    rows = []
    for name, content, captions in pairs(count):
        (folder / inside / name).write_bytes(content)
        rows += [(name, caption) for caption in captions]
    if kind == "csv":
        with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "caption"), *rows])
    else:
        columns = dict(zip(("image", "caption"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), folder / "captions.parquet")
    return folder


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_shards(folder: Path, count: int = 8, each: int = 4) -> Path:
    """Archives as webdataset has them."""
    everything = pairs(count)
    for first in range(0, count, each):
        members = []
        for name, content, captions in everything[first : first + each]:
            key = name.partition(".")[0]
            members += [(f"{key}.png", content), (f"{key}.txt", captions[0].encode()), (f"{key}.cls", b"1")]
        write_tar(folder / f"{first:05d}.tar", members)
    return folder
