"""A memory of the last keys (He et al. 2020, MoCo)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Queue(nn.Module):
    """The last `size` keys; the newest take the places of the oldest. It begins with random directions.

    Args:
        size: keys.
        width: of a key.

    Attributes:
        keys: [size, width], normalised; a buffer, and so part of every checkpoint.
        count: how many were put in so far, int64; the next goes to the place `count % size`.
    """

    keys: Tensor
    count: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size = size
        self.register_buffer("keys", functional.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        return f"{self.size} keys of {self.keys.shape[1]}"

    @torch.no_grad()
    def put(self, keys: Tensor) -> None:
        """Add keys [n, width], in their order; of more than there is room for the last stay."""
        self.count += keys.shape[0]
        keys = keys[-self.size :].to(self.keys)
        places = (self.count - keys.shape[0] + torch.arange(keys.shape[0], device=keys.device)) % self.size
        self.keys.index_copy_(0, places, keys)

    @property
    def filled(self) -> float:
        """The share of places that hold a key and not what the queue began with."""
        return min(1.0, int(self.count) / self.size)
