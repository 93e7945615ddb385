"""Tensors and files → pictures that fit into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GAP = 2  # pixels between pictures of a strip, before enlarging
SMALLEST = 96  # side below which pictures are enlarged
LARGEST = 160  # side above which the pictures of a strip are made smaller


def pixels(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised [C,…,H,W] → uint8 [...,H,W,3]: normalisation undone, clipped to what a screen shows.

    One channel becomes grey; of more than three, the first three are shown.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    x = x.detach().float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    x = x.movedim(0, -1)
    x = x[..., :3] if x.shape[-1] >= 3 else x[..., :1].expand(*x.shape[:-1], 3)
    return (x.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def filmstrip(signals: Sequence[Tensor], mean: Sequence[float], std: Sequence[float], frames: int = 8) -> np.ndarray:
    """A row for each signal (input, masked, predicted), a column for each frame.

    Args:
        signals: [C,T,H,W] or [C,H,W], normalised, of one shape.
        mean, std: of the normalisation.
        frames: at most so many, spread evenly over the clip.

    Returns:
        np.ndarray: uint8 [H',W',4], RGBA: the gaps are transparent, so that it lies well on light and dark.
    """
    rows = []
    for x in signals:
        picture = pixels(x if x.ndim == 4 else x.unsqueeze(1), mean, std)
        chosen = np.linspace(0, len(picture) - 1, min(frames, len(picture))).round().astype(int)
        rows.append(enlarged(reduced(picture[chosen])))
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


def reduced(pictures: np.ndarray) -> np.ndarray:
    """[T,H,W,3] made smaller until the longer side is at most 160."""
    from PIL import Image

    h, w = pictures.shape[1:3]
    factor = LARGEST / max(h, w)
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


def thumbnail(path: Path | str, start: float | None, end: float | None, side: int = 256) -> str:
    """The middle frame of a stretch of a video, or an image (no times), at most `side` pixels, as a data URI.

    Raises:
        DecodeError: the file cannot be read.
    """
    from PIL import Image

    from unveil.data.images import read_image
    from unveil.data.video import read_frames

    if start is None or end is None:
        picture = read_image(path).permute(1, 2, 0).numpy()
    else:
        picture = read_frames(path, times=[(start + end) / 2])[0].numpy()
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((side, side))
    return data_uri(enlarged(np.asarray(image)), "JPEG")
