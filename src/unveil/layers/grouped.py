"""Batch statistics of parts of a batch, as several devices would take them (MoCo, He et al. 2020, section 3.3: shuffling BN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_groups(network: Callable[[Tensor], Tensor], x: Tensor, groups: int, order: Tensor | None = None) -> Tensor:
    """The network applied to one part of the batch after the other, so that a batch norm in it sees a part at a time.

    A query that shares its statistics with its own key alone can be told by them: the network cheats. With the keys in another
    order than the queries, it cannot.

    Args:
        network: [b, …] → [b, D].
        x: [B, …].
        groups: parts, of sizes that differ by one at most; none has fewer than two samples, so there may be fewer of them.
        order: a permutation of the batch [B] int64 in which it is divided; what is returned is in the old order.

    Returns:
        [B, D], row by row of x.
    """
    groups = max(1, min(groups, x.shape[0] // 2))
    if groups == 1:
        return network(x)
    shuffled = x if order is None else x[order]
    result = torch.cat([network(part) for part in shuffled.tensor_split(groups)])
    return result if order is None else result[order.argsort()]
