"""Losses in which a sample is told from others. Features are normalised by the caller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unveil.losses.gathering import gathered
from unveil.precision import full_precision

ROWS = 256
"""Queries whose similarities to all keys are held at once."""


def contrast(queries: Tensor, keys: Tensor, scale: float | Tensor, chunk: int = ROWS) -> Tensor:
    """InfoNCE (1807.03748): each query tells its own key from those of all other samples, in all processes.

    The mean over this process's rows of the cross-entropy of `scale · queries @ keysᵀ`, keys of all processes, with the own
    key as label. Weighted by each process's share of the samples, values and gradients (those of keys from elsewhere, too) are
    those of one process with the whole batch. Computed in float32, `chunk` rows at a time, which the backward pass computes
    again: memory grows with the global batch, not with its square.

    Args:
        queries: [B, D], normalised.
        keys: [B, D], normalised; row by row the queries' own.
        scale: the inverse of the temperature, which may be learned.
        chunk: rows at a time; changes nothing but memory and speed.
    """
    everyone, first = gathered(keys)
    rows = queries.shape[0]
    own = torch.arange(first, first + rows, device=queries.device)
    with full_precision(queries.device):  # scaled similarities lie close together
        everyone, queries = everyone.float(), queries.float()
        if rows <= chunk:
            return _summed(queries, everyone, scale, own) / rows
        parts = [
            checkpoint(_summed, some, everyone, scale, label, use_reentrant=False, preserve_rng_state=False)
            for some, label in zip(queries.split(chunk), own.split(chunk), strict=True)
        ]
        return torch.stack(parts).sum() / rows  # type: ignore[arg-type]


def _summed(queries: Tensor, keys: Tensor, scale: float | Tensor, own: Tensor) -> Tensor:
    return functional.cross_entropy(scale * queries @ keys.T, own, reduction="sum")


def contrast_with(queries: Tensor, keys: Tensor, negatives: Tensor, scale: float | Tensor) -> Tensor:
    """InfoNCE with given negatives (MoCo, 1911.05722, eq. 1): the mean over rows; other rows' keys are no negatives.

    Args:
        queries, keys: [B, D], normalised; row by row of the same sample.
        negatives: [K, D], normalised, shared by all rows.
        scale: the inverse of the temperature.
    """
    return functional.cross_entropy(
        similarities(queries, keys, negatives) * scale, queries.new_zeros(queries.shape[0], dtype=torch.int64)
    )


def similarities(queries: Tensor, keys: Tensor, negatives: Tensor) -> Tensor:
    """Each query with its own key, then with all negatives, in float32: [B, 1 + K]."""
    with full_precision(queries.device):  # scaled similarities lie close together
        queries, keys, negatives = queries.float(), keys.float(), negatives.float()
        return torch.cat([(queries * keys).sum(1, keepdim=True), queries @ negatives.T], 1)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """SimSiam's D (2011.10566, eq. 1): minus the cosine similarity, the mean over rows; [B, D] twice, any lengths → scalar."""
    return -functional.cosine_similarity(prediction.float(), target.float(), dim=1).mean()
