"""How files are encoded anew for fast random access; images and clouds of points. Sources are only read."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from unveil.data.cloud_files import read_cloud
from unveil.data.clouds import sample
from unveil.data.images import read_image

_LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Encoding:
    """How files are encoded.

    Args:
        short_side: pixels of the shorter side, at most.
        gop: frames from one key frame to the next, at most.
        crf: quality of H.264: 0 is lossless, 18 looks the same, 51 is worst.
        fps: frames per second, at most; None: all frames, at their own times.
        points: of a cloud, at most; of a mesh, drawn on its surface.
        rate: samples of sound per second, at most.
    """

    short_side: int = 320
    gop: int = 32
    crf: int = 18
    fps: float | None = None
    points: int = 8192
    rate: int = 16000

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """A size with this short side, or the size itself where that is smaller."""
        factor = min(1.0, self.short_side / min(width, height))
        return max(1, round(width * factor)), max(1, round(height * factor))


def video_name(name: str) -> str:
    """What a video file is called when it was encoded."""
    return os.path.splitext(name)[0] + ".mp4"


def image_name(name: str) -> str:
    """What an image file is called when it was encoded: lossless stays lossless."""
    stem, suffix = os.path.splitext(name)
    return stem + (".png" if suffix.lower() in _LOSSLESS else ".jpg")


def cloud_name(name: str) -> str:
    """What a file of points is called when it was encoded."""
    return os.path.splitext(name)[0] + ".npy"


def encode_image(source: str, target: str, how: Encoding) -> int:
    """JPEG of quality 95, or PNG where the source was lossless; a JPEG or PNG that is small enough is copied as it is.

    Returns:
        1.

    Raises:
        DecodeError: the source cannot be read.
        OSError: the target cannot be written.
    """
    pixels = read_image(source)
    height, width = pixels.shape[1:]
    size = how.scaled(width, height)
    suffix = os.path.splitext(source)[1].lower()
    lossless = suffix in _LOSSLESS
    if size == (width, height) and suffix in (".jpg", ".jpeg", ".png"):
        shutil.copyfile(source, target)
        return 1
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.LANCZOS)
    if lossless:
        image.save(target, format="PNG")
    else:
        image.save(target, format="JPEG", quality=95, subsampling=0)
    return 1


def encode_cloud(source: str, target: str, how: Encoding) -> int:
    """An array of points, float32 [N, 3], about their mean: a mesh as points of its surface, a cloud thinned out where it is large.

    The draw is always the same.

    Returns:
        1.

    Raises:
        DecodeError: the source cannot be read.
        OSError: the target cannot be written.
    """
    cloud = read_cloud(source)
    count = how.points if len(cloud.faces) else min(how.points, len(cloud.points))
    points = sample(cloud, count, torch.Generator().manual_seed(0)).numpy()
    with open(target, "wb") as file:
        # About their mean, so that float32 keeps the shape of what lies far from the origin.
        np.save(file, (points - points.mean(axis=0)).astype(np.float32), allow_pickle=False)
    return 1
