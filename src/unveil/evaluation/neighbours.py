"""The rows of a matrix with the largest products with a query: exact, a block of rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

PRODUCTS = 2**20
"""Products in memory at once: as many as stay in a cache."""
ROWS = 2**18
"""Rows in a block at most."""


class Neighbours:
    """The best so far of rows that come in blocks; of equal products the earlier row is the better one.

    Args:
        queries: [m,D], on the device and of the type of the rows.
        k: rows wanted of each; where fewer came, fewer are found.

    Attributes:
        products: [m,k], the largest first.
        rows: int64 [m,k], counted over all blocks.
    """

    def __init__(self, queries: Tensor, k: int):
        self.queries, self.k, self.seen = queries, k, 0
        self.products = queries.new_empty(len(queries), 0)
        self.rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)

    def look(self, block: Tensor) -> None:
        """More rows, [n,D]."""
        size = max(1, min(ROWS, PRODUCTS // max(1, len(self.queries))))
        for some in block.split(size):
            self._merge(self.queries @ some.T)
            self.seen += len(some)

    def _merge(self, products: Tensor) -> None:
        if self.products.shape[1] < self.k:
            self.products, self.rows = self._best(self.products, self.rows, products)
            return
        # After the first blocks a new row is rarely among the best: the largest product tells, at a fraction of a selection's price.
        better = (products.amax(1) > self.products[:, -1]).nonzero().flatten()
        if len(better):
            found = self._best(self.products[better], self.rows[better], products[better])
            self.products[better], self.rows[better] = found

    def _best(self, products: Tensor, rows: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        values, places = _first(new, self.k)
        values, rows = torch.cat([products, values], 1), torch.cat([rows, places + self.seen], 1)
        # Earlier rows stand further left, and a stable sort leaves equal ones in their order.
        values, order = values.sort(dim=1, descending=True, stable=True)
        return values[:, : self.k], rows.gather(1, order)[:, : self.k]


def _first(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their places, in order; of equal ones the first. (`topk` takes any of them.)"""
    if products.shape[1] <= k:
        return products.sort(dim=1, descending=True, stable=True)
    values, places = _topk(products, k + 1)
    for row in (values[:, k - 1] == values[:, k]).nonzero().flatten().tolist():
        ordered, order = products[row].sort(descending=True, stable=True)
        values[row], places[row] = ordered[: k + 1], order[: k + 1]
    places, order = places[:, :k].sort(1)
    values, again = values[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, again)


def _topk(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk` along the rows. The k largest of n lie in those k groups of them whose largest are the largest: so n are read once,
    and chosen among are n / size and k · size, which is least where size is √(n / k)."""
    size = 1 << (products.shape[1] // k).bit_length() // 2
    count = products.shape[1] // size
    if size < 8:
        return products.topk(k, 1)
    groups = products[:, : count * size].unflatten(1, (count, size)).amax(2).topk(k, 1).indices
    places = (groups[:, :, None] * size + torch.arange(size, device=groups.device)).flatten(1)
    rest = torch.arange(count * size, products.shape[1], device=groups.device).expand(len(products), -1)
    places = torch.cat([places, rest], 1)
    values, chosen = products.gather(1, places).topk(k, 1)
    return values, places.gather(1, chosen)


def neighbours(gallery: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of a gallery with the largest products with each query.

    Besides the gallery itself, which may be a file mapped into memory, no more is held than a block's products.

    Args:
        gallery: [n,D].
        queries: [m,D].
        k: at most n are found.

    Returns:
        tuple[Tensor, Tensor]: products [m,k], the largest first, and rows, int64 [m,k].
    """
    best = Neighbours(queries, k)
    best.look(gallery)
    return best.products, best.rows
