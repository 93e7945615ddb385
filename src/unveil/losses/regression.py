"""Losses of predicted values."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over everything, computed in float32: two tensors of one shape → scalar."""
    return functional.mse_loss(prediction.float(), target.float())
