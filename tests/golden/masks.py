"""How the references mask: the rules that `mask` of `<system>.yaml` may name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unveil.masking import Mask


def smallest_visible(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The places with the smallest noise stay, in that order (MAE, MAE-ST)."""
    order = noise.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return Mask(order[:, :keep], order[:, keep:].sort().values)


def tubes(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The same places at all times, those with the smallest noise visible, in the grid's order (VideoMAE)."""
    places = noise.shape[1]
    keep = places - int(ratio * places)
    step = torch.arange(grid[0])[:, None] * places
    parts = noise.argsort(dim=1).tensor_split([keep], dim=1)
    return Mask(*((part.sort().values[:, None] + step).flatten(1) for part in parts))


def largest_masked(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The places with the largest noise are hidden, as many as the share rounded down; both in the grid's order (MaskFeat, on the grid
    that masks are drawn on; BEiT)."""
    assert tuple(noise.shape[1:]) in (tuple(grid), (torch.Size(grid).numel(),)), (
        f"masks of {tuple(noise.shape[1:])}, ours: {grid}"
    )
    order = noise.flatten(1).argsort(dim=1, descending=True)
    parts = order.tensor_split([int(ratio * order.shape[1])], dim=1)
    return Mask(parts[1].sort().values, parts[0].sort().values)


def smallest_visible_together(noise: Tensor, grid: tuple[int, ...], ratio: float, batch: int) -> Mask:
    """One order for all samples: the places with the smallest noise stay, in that order (MAE3D at random)."""
    order = noise.argsort().expand(batch, -1)
    visible, masked = order.tensor_split([order.shape[1] - int(order.shape[1] * ratio)], dim=1)
    return Mask(visible, masked.sort().values)


def about_centre(places: Tensor, grid: tuple[int, ...], ratio: float, centre: int) -> Mask:
    """The places nearest to one of them are hidden (MAE3D in blocks)."""
    order = (places - places[:, centre, None]).square().sum(-1).argsort(dim=1)
    masked, visible = order.tensor_split([int(order.shape[1] * ratio)], dim=1)
    return Mask(visible.sort().values, masked.sort().values)


def smallest_of_each_axis(
    noise_t: Tensor, noise_f: Tensor, grid: tuple[int, ...], time: float, frequency: float
) -> Mask:
    """Of each axis the rows with the smallest noise stay, and the places where two such rows cross (Audio-MAE)."""
    kept = []
    for noise, ratio, size in zip((noise_t, noise_f), (time, frequency), grid, strict=True):
        first = noise.argsort(dim=1)[:, : int(size * (1 - ratio))]
        kept.append(torch.zeros(noise.shape, dtype=torch.bool).scatter(1, first, True))
    visible = (kept[0][:, :, None] & kept[1][:, None]).flatten(1)
    return Mask(*(torch.stack([row.nonzero()[:, 0] for row in part]) for part in (visible, ~visible)))


MASKS: dict[str, Callable[..., Mask]] = {
    "smallest_visible_together": smallest_visible_together,
    "about_centre": about_centre,
    "smallest_visible": smallest_visible,
    "tubes": tubes,
    "largest_masked": largest_masked,
    "smallest_of_each_axis": smallest_of_each_axis,
}
