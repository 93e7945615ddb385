"""Samples, as the network takes them → pictures for people, uint8 [T,H,W,3]."""

from __future__ import annotations

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
