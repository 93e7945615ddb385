"""Samples, as the network takes them → pictures for people, uint8 [T,H,W,3]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SIDE = 160
"""Of a picture of a cloud, in pixels."""
PAPER = (246, 246, 244)
NEAR, FAR = (24, 60, 120), (168, 196, 222)
"""Colours of the points at the front and at the back."""
REACH = 1.15
"""What a picture shows of space: a cube of twice this side, a little more than the unit sphere."""
COLUMNS, NOTES = 512, 128
"""Of a picture of sound, in pixels: at most so wide, about, and so high."""
HEAT = ((8, 8, 24), (60, 18, 94), (150, 38, 110), (224, 86, 66), (250, 170, 70), (252, 248, 200))
"""Colours of what is soft to what is loud."""


def pixels(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised [C,…,H,W] → uint8 [...,H,W,3]: normalisation undone, clipped to what a screen shows.

    One channel becomes grey; of more than three, the first three are shown.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    x = x.detach().float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    x = x.movedim(0, -1)
    x = x[..., :3] if x.shape[-1] >= 3 else x[..., :1].expand(*x.shape[:-1], 3)
    return (x.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def frames(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """A normalised clip [C,T,H,W] as its frames, an image [C,H,W] as one picture."""
    return pixels(x if x.ndim == 4 else x.unsqueeze(1), mean, std)


def three_views(x: Tensor, mean: Sequence[float] = (), std: Sequence[float] = (), side: int = SIDE) -> np.ndarray:
    """A cloud of points [3,N] from its right, from the front and from above, in parallel; what is near is dark.

    Up is y, as in ModelNet and ShapeNet. Points outside of the picture are left out.

    Args:
        x: in the unit sphere, about.
        mean, std: of no meaning here.
        side: of a picture.
    """
    x = x.detach().float().cpu()
    right, up, front = x[:, x.isfinite().all(dim=0)].numpy()
    views = ((-front, up, right), (right, up, front), (right, -front, up))  # across, upwards, towards who looks
    return np.stack([_scatter(*view, side) for view in views])


def spectrogram(x: Tensor, rate: int) -> np.ndarray:
    """A waveform [1,L] as a picture of its notes, uint8 [H,W,3]: time runs to the right, the low notes are at the bottom.

    What is 80 decibels below full scale, or softer, is dark. Notes stand on the mel scale: as far apart as they sound.

    Args:
        x: in [-1, 1].
        rate: samples per second.
    """
    x = x.detach().float().cpu()[0].nan_to_num(0)
    size = max(16, round(0.025 * rate))
    shift = max(1, round(0.01 * rate), -(-len(x) // COLUMNS))
    window = torch.hann_window(size)
    padded = torch.nn.functional.pad(x, (0, max(0, size - len(x))))
    power = torch.stft(padded, size, shift, window=window, center=True, pad_mode="constant", return_complex=True)
    power = power.abs().square() / (window.sum() / 2) ** 2  # a tone of full scale has power 1
    decibels = (power + 1e-12).log10() * 10
    mel = torch.linspace(0, 1127 * math.log1p(rate / 2 / 700), NOTES)
    at = (mel / 1127).expm1() * 700 / (rate / 2) * (power.shape[0] - 1)  # the row of each note in the spectrum
    notes = decibels[at.round().long()]
    return painted((notes + 80) / 80).repeat(max(1, COLUMNS // 2 // notes.shape[1]), axis=1)


def painted(x: Tensor) -> np.ndarray:
    """Loudness [F,T] in [0, 1], lowest note first → a picture [F,T,3], lowest note at the bottom."""
    levels = x.detach().float().cpu().nan_to_num(0).clamp(0, 1).flip(0).numpy()
    steps = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(levels, steps, [colour[channel] for colour in HEAT]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _scatter(across: np.ndarray, upwards: np.ndarray, towards: np.ndarray, side: int) -> np.ndarray:
    """Dots, the nearer ones over the farther ones: [side,side,3]."""
    picture = np.full((side, side, 3), PAPER, np.uint8)
    order = np.argsort(towards, kind="stable")
    scale = (side - 1) / (2 * REACH)
    columns = np.round((across[order] + REACH) * scale).astype(np.int64)
    rows = np.round((REACH - upwards[order]) * scale).astype(np.int64)
    share = np.clip((towards[order, None] + 1) / 2, 0, 1)
    colours = (share * np.array(NEAR) + (1 - share) * np.array(FAR)).round().astype(np.uint8)
    # A dot is a plus of five pixels. Of several assignments to a pixel NumPy keeps the last, so each is drawn in order of depth.
    offsets = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    where = np.stack([rows, columns], axis=1)[:, None] + offsets
    inside = ((where >= 0) & (where < side)).all(axis=-1)
    painted = np.broadcast_to(colours[:, None], (*where.shape[:2], 3))
    picture[tuple(where[inside].T)] = painted[inside]
    return picture
