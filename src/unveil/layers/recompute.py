"""Activations computed twice instead of kept (Chen et al. 2016), with running statistics that move once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms move copies of their running statistics; their own are as they were, to the bit."""
    kept = [
        (part, name, buffer)
        for part in network.modules()
        if isinstance(part, _BatchNorm)
        for name, buffer in part.named_buffers(recurse=False)
    ]
    # Exchanged, not written back: PyTorch counts writes, and refuses a backward pass through what was written to since.
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`, of which the backward pass finds nothing but the inputs, and computes the rest again.

    A batch norm would count the same batch twice; here the second time leaves its statistics alone.
    """
    if not torch.is_grad_enabled():
        return block(*inputs)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block)))
