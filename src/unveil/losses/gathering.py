"""Features of all processes in each of them, for losses in which samples meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gathered(x: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, in the order of their ranks, and the place of this one's first.

    Gradients flow back to the process a row came from: it gets the sum of those of all processes' losses. So every process has
    to call this alike, and to run its backward pass. With one process it is `x` itself.

    Args:
        x: [B, D]; B need not be the same in all processes, D and the kind of number have to be.

    Returns:
        everyone [N, D], and the row of `everyone` that is `x[0]`.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([x.shape[0]], device=x.device))
    sizes = torch.cat(counts).tolist()
    return _Gathered.apply(x, sizes), sum(sizes[: distributed.get_rank()])


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        most = max(sizes)
        padded = x.new_zeros(most, *x.shape[1:])  # gloo and NCCL want tensors of one shape
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.split(ctx.sizes)[distributed.get_rank()], None
