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
    """Inside, a batch norm in training mode does not update its running statistics."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
