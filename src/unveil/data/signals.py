"""Kinds of signal: what a file holds, and how samples of it are read. Only here is it known what kind of file it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unveil.data import manifest_file
from unveil.data.boxes import Crop
from unveil.data.clips import Clip, Dense
from unveil.data.clouds import Points
from unveil.data.drawing import frames
from unveil.data.images import read_image
from unveil.data.labels_csv import read_labels
from unveil.data.listing import list_files, suffix
from unveil.data.manifest import Row
from unveil.data.measure import measure_image, measure_video
from unveil.data.signal import Signal, Silent
from unveil.data.sound import Sound
from unveil.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from unveil.data.video import probe, read_frames, windows
from unveil.data.video_reader import VideoReader
from unveil.errors import DecodeError, UserError

PIXELS = "pixels in [0, 1], minus mean, divided by std"


@dataclass(frozen=True)
class Video(Silent):
    """Clips of video files, uint8 [T,C,H,W].

    Args:
        clip: which frames: `Dense(frames, stride)`, `Uniform(frames)`.
    """

    clip: Clip
    key: ClassVar[str] = "video"
    suffixes: ClassVar[frozenset[str]] = VIDEO_SUFFIXES
    pictures: ClassVar[bool] = True
    values: ClassVar[str] = PIXELS
    measure = staticmethod(measure_video)

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Tensor:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            return _channels_first(video.read(self.clip.times(start, end, video.fps, generator), crop))

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            clips = [self.clip.times(start, end, video.fps, generator) for _ in range(count)]
            frames = _channels_first(video.read([time for clip in clips for time in clip]))  # decodes once for all
        return list(frames.split([len(clip) for clip in clips]))

    def views(self, row: Row, clips: int = 1) -> list[Tensor]:
        with VideoReader(row.path) as video:
            start, end = span(row, video)
            views = self.clip.views(start, end, video.fps, clips)
            frames = _channels_first(video.read([time for view in views for time in view]))  # decodes once for all
        return list(frames.split([len(view) for view in views]))

    def blank(self, height: int = 256, width: int = 256) -> Tensor:
        return torch.zeros(self.clip.frames, 3, height, width, dtype=torch.uint8)

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Tensor]]:
        """Dense clips: sliding windows, `hop` seconds apart (None: end to end). Clips that span the whole video (uniform
        segments): one window of everything, or one of each `hop` seconds."""
        if isinstance(self.clip, Dense):
            for start, end, frames in windows(path, self.clip.frames, self.clip.stride, hop):
                yield start, end, _channels_first(frames)
            return
        with VideoReader(path) as video:
            start, length = 0.0, video.duration if hop is None else hop
            while start < video.duration - 0.5 / video.fps or start == 0.0:
                end = min(start + length, video.duration)
                yield start, end, _channels_first(video.read(self.clip.views(start, end, video.fps, 1)[0]))
                start += length

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        return frames(x, mean, std)

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        return read_frames(path, times=[((start or 0.0) + (end or 0.0)) / 2])[0].numpy()

    @staticmethod
    def lasts(path: str | os.PathLike[str]) -> float | None:
        return probe(path).duration


@dataclass(frozen=True)
class Image(Silent):
    """Still images, uint8 [C,H,W]."""

    key: ClassVar[str] = "image"
    suffixes: ClassVar[frozenset[str]] = IMAGE_SUFFIXES
    pictures: ClassVar[bool] = True
    values: ClassVar[str] = PIXELS
    measure = staticmethod(measure_image)

    def read(self, row: Row, generator: torch.Generator | None = None, crop: Crop | None = None) -> Tensor:
        image = read_image(row.path)
        if crop is None:
            return image
        top, left, height, width = crop(*image.shape[-2:])
        return image[:, top : top + height, left : left + width]

    def moments(self, row: Row, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        return [read_image(row.path)] * count  # a still has one moment

    def views(self, row: Row, clips: int = 1) -> list[Tensor]:
        return [read_image(row.path)]  # a still has one moment, however many clips are asked for

    def blank(self, height: int = 256, width: int = 256) -> Tensor:
        return torch.zeros(3, height, width, dtype=torch.uint8)

    def windows(
        self, path: str | os.PathLike[str], hop: float | None = None
    ) -> Iterator[tuple[float | None, float | None, Tensor]]:
        yield None, None, read_image(path)

    def drawn(self, x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        return frames(x, mean, std)

    @staticmethod
    def glimpse(path: str | os.PathLike[str], start: float | None, end: float | None) -> np.ndarray:
        return read_image(path).permute(1, 2, 0).numpy()


SIGNALS: tuple[type[Signal], ...] = (Video, Image, Points, Sound)
"""Every kind. A file that several of them can read is, where nothing else is said, of the first: a video is not its sound track."""


def owner(path: str | os.PathLike[str]) -> type[Signal] | None:
    """The kind of signal that a file is named as; None where its suffix is unknown."""
    return next((signal for signal in SIGNALS if suffix(os.fspath(path)) in signal.suffixes), None)


def span(row: Row, video: VideoReader) -> tuple[float, float]:
    """The row's stretch of a video, in seconds.

    Raises:
        DecodeError: it starts after the end.
    """
    start, end = row.start or 0.0, video.duration if row.end is None else min(row.end, video.duration)
    if start > 0 and start >= video.duration - 0.5 / video.fps:
        raise DecodeError(f"{row.path}: the segment starts at {start:g} s, the video ends at {video.duration:.3f} s.")
    return start, max(start, end)


def _channels_first(frames: Tensor) -> Tensor:
    """[T,H,W,C] → [T,C,H,W], a view: torchvision resizes channels-last memory fastest."""
    return frames.permute(0, 3, 1, 2)


def signal_of(paths: Sequence[str | os.PathLike[str]]) -> str:
    """What most of the files are, by their suffixes: the key of a signal, "video", "image", "points", "audio".

    Args:
        paths: folders, files, lists of labels and manifests, as for `Manifest.scan`.

    Raises:
        UserError: no such path, or no kind of file there that is known.
    """
    count: Counter[str] = Counter()
    for path in [os.path.abspath(path) for path in paths]:
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file or folder.")
        if kept := manifest_file.of(path):
            count.update(manifest_file.suffixes_in(kept))
            continue
        listed = os.path.join(path, "labels.csv") if os.path.isdir(path) else path
        if listed.lower().endswith(".csv") and os.path.isfile(listed):
            names = [fields["path"] for _, fields in read_labels(listed)]
        else:
            known = frozenset().union(*(signal.suffixes for signal in SIGNALS))
            names = list_files(path, known) if os.path.isdir(path) else [path]
        count.update(suffix(name) for name in names)
    files = {signal.key: 0 for signal in SIGNALS}
    for name, number in count.items():
        if (kind := owner(f"file{name}")) is not None:
            files[kind.key] += number
    if not any(files.values()):
        found = ", ".join(sorted(name or "(no suffix)" for name in count)) or "nothing"
        raise UserError(f"{', '.join(map(str, paths))}: no {' and no '.join(files)} files (found: {found}).")
    return max(files, key=files.__getitem__)


def to_input(x: Tensor, mean: Sequence[float], std: Sequence[float], lead: int = 0) -> Tensor:
    """Samples as a network takes them: float32, normalised, channels first. What is float32 is so already.

    Args:
        x: uint8 [T,C,H,W] or [C,H,W]; float32 of any shape.
        mean, std: of each channel, on values in [0, 1].
        lead: how many axes there are before those: 0 of a sample, 1 of a batch, 2 of a batch of several views.

    Returns:
        float32 [C,T,H,W], [C,H,W], or as it came, behind the leading axes; on the device of `x`.
    """
    if x.dtype == torch.float32:
        return x.contiguous()
    if x.dtype != torch.uint8 or x.ndim - lead not in (3, 4):
        raise ValueError(f"expected uint8 [T,C,H,W] or [C,H,W], or float32, got {x.dtype} {tuple(x.shape[lead:])}")
    scale = torch.tensor(std, dtype=torch.float32).mul(255).reciprocal().view(-1, 1, 1).to(x.device)
    shift = (torch.tensor(mean, dtype=torch.float32) / torch.tensor(std, dtype=torch.float32)).view(-1, 1, 1)
    shift = shift.to(x.device)
    clips = x.reshape(-1, *([1] if x.ndim - lead == 3 else []), *x.shape[lead:])  # an image is a clip of one frame
    count, frames, channels, *size = clips.shape
    out = torch.empty((count, channels, frames, *size), device=x.device)
    if x.is_cpu:
        for clip, place in zip(clips, out, strict=True):
            for time, frame in enumerate(clip):  # one by one, they stay in the processor's cache
                place[:, time].copy_(frame.contiguous()).mul_(scale).sub_(shift)
    else:
        out.copy_(clips.transpose(1, 2)).mul_(scale[:, None]).sub_(shift[:, None])
    if x.ndim - lead == 3:
        out = out.squeeze(2)
    return out.reshape(*x.shape[:lead], *out.shape[1:])
