"""How far two clouds of points are apart."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from unveil.tokens.groups import nearest, taken


def chamfer(prediction: Tensor, target: Tensor, over: Literal["mean", "sum"] = "mean") -> Tensor:
    """Chamfer distance: of each point the squared distance to the nearest of the other cloud, both ways (Fan et al. 2017).

    Exact: only the neighbours' numbers come from the table of distances, of which a stripe is held at a time; the distances,
    and so the gradients, are computed again from the points.

    Args:
        prediction: [B, N, K].
        target: [B, M, K].
        over: "mean" or "sum" of a cloud's points; of samples always the mean.

    Returns:
        Tensor: scalar, float32 at least: both ways together.
    """
    there, back = nearest_squared(prediction, target), nearest_squared(target, prediction)
    if over == "mean":
        return there.mean() + back.mean()
    return there.sum(1).mean() + back.sum(1).mean()


def nearest_squared(a: Tensor, b: Tensor) -> Tensor:
    """Of each point of a [B, N, K] the squared distance to the nearest of b [B, M, K]: [B, N]."""
    a, b = (x.float() if x.dtype.itemsize < 4 else x for x in (a, b))
    return (a - taken(b, nearest(a, b, 1))[:, :, 0]).square().sum(-1)
