"""Tensors and files → pictures that fit into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from unveil.data.drawing import frames as frames_of
from unveil.data.drawing import pixels
from unveil.data.listing import suffix

if TYPE_CHECKING:
    from unveil.data.signal import Signal

__all__ = ["data_uri", "enlarged", "filmstrip", "pixels", "reduced", "thumbnail"]

GAP = 2  # pixels between pictures of a strip, before enlarging
SMALLEST = 96  # side below which pictures are enlarged
LARGEST = 160  # side above which the pictures of a strip are made smaller
LONGEST = 1024  # the same of sound, whose time is long and whose notes are few


def filmstrip(
    signals: Sequence[Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    frames: int = 8,
    drawn: Callable[[Tensor, Sequence[float], Sequence[float]], np.ndarray] = frames_of,
    largest: int = LARGEST,
) -> np.ndarray:
    """A row for each signal (input, masked, predicted), a column for each frame, or whatever pictures there are of one.

    Args:
        signals: as the network takes them.
        mean, std: of the normalisation.
        frames: at most so many, spread evenly over the clip.
        drawn: a signal → its pictures, uint8 [T,H,W,3], of one size and number for all: see `Signal.drawn`.
        largest: pixels of a picture's longer side, at most.

    Returns:
        np.ndarray: uint8 [H',W',4], RGBA: the gaps are transparent, so that it lies well on light and dark.
    """
    rows = []
    for x in signals:
        picture = drawn(x, mean, std)
        chosen = np.linspace(0, len(picture) - 1, min(frames, len(picture))).round().astype(int)
        rows.append(enlarged(reduced(picture[chosen], largest)))
    gap = GAP * max(1, rows[0].shape[1] // SMALLEST)
    t, h, w, _ = rows[0].shape
    strip = np.zeros((len(rows) * h + (len(rows) - 1) * gap, t * w + (t - 1) * gap, 4), np.uint8)
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            y, x = r * (h + gap), c * (w + gap)
            strip[y : y + h, x : x + w, :3] = frame
            strip[y : y + h, x : x + w, 3] = 255
    return strip


def enlarged(pictures: np.ndarray) -> np.ndarray:
    """[...,H,W,3] with its pixels repeated until the shorter side is at least 96: tiny pictures stay sharp."""
    factor = -(-SMALLEST // min(pictures.shape[-3:-1]))
    return pictures if factor <= 1 else pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def reduced(pictures: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """[T,H,W,3] made smaller until the longer side is at most `largest`."""
    from PIL import Image

    h, w = pictures.shape[1:3]
    factor = largest / max(h, w)
    if factor >= 1:
        return pictures
    size = (round(w * factor), round(h * factor))
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.LANCZOS)) for p in pictures])


def data_uri(picture: np.ndarray, format: str = "PNG") -> str:
    """uint8 [H,W,3 or 4] → "data:image/…;base64,…", to stand in a page.

    Args:
        picture: with four channels, the last is opacity (not for JPEG).
        format: "PNG" keeps every pixel, "JPEG" and "WEBP" are for photographs.
    """
    from PIL import Image

    buffer = io.BytesIO()
    options = {"optimize": True} if format == "PNG" else {"quality": 85}
    Image.fromarray(picture).save(buffer, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def player(file: bytes | None) -> str | None:
    """A small M4A file as a data URI, for an element that plays it; None of what makes no sound."""
    return None if file is None else f"data:audio/mp4;base64,{base64.b64encode(file).decode('ascii')}"


def kind_of(path: Path | str, timed: bool, key: str = "") -> type[Signal]:
    """As what a file was read.

    Args:
        path: of the file. One that is named as nothing that is known was read all the same.
        timed: whether its windows have times.
        key: of the signal that an index is of: of a video with "audio", its sound track.
    """
    from unveil.data.signals import SIGNALS, Image, Video

    named = [kind for kind in SIGNALS if suffix(str(path)) in kind.suffixes]
    usual = named[0] if named else Video if timed else Image
    return next((kind for kind in named or SIGNALS if kind.key == key and (named or timed)), usual)


def thumbnail(path: Path | str, start: float | None, end: float | None, side: int = 256, key: str = "") -> str:
    """A glimpse of a stretch of a file, or of one without times, at most `side` pixels, as a data URI.

    Args:
        path, start, end: the stretch.
        side: pixels.
        key: see `kind_of`.

    Raises:
        DecodeError: the file cannot be read.
    """
    from PIL import Image

    kind = kind_of(path, start is not None, key)
    image = Image.fromarray(np.ascontiguousarray(kind.glimpse(path, start, end)))
    image.thumbnail((side, side))
    return data_uri(enlarged(np.asarray(image)), "JPEG")
