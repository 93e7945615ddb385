"""Give up activations in the forward pass and compute them again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: Any) -> Any:
    """`module(*inputs)`, keeping only the inputs for the backward pass.

    Batch norms use the same statistics again, and count the batch once.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)
    return checkpoint(
        module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_as_they_are(module))
    )


@contextmanager
def _statistics_as_they_are(module: nn.Module) -> Iterator[None]:
    """Inside, a batch norm in training mode leaves its running statistics as they are."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:  # it has to save the same tensors again, so it gets its statistics, and adds nothing to them
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
