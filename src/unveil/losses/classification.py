"""Losses of predicted classes. Options are fixed with `functools.partial`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional


def cross_entropy(prediction: Tensor, target: Tensor, smoothing: float = 0.0, weight: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy, the mean over samples, or over all places of all samples.

    Args:
        prediction: logits [B, classes] or [B, N, classes].
        target: class indices [B] or [B, N] int64, or probabilities [B, classes] (mixup, cutmix).
        smoothing: share of the target that is spread evenly over all classes.
        weight: of each class [classes].
    """
    # PyTorch's own mean divides by the weights of the batch, and so depends on which samples share a micro-batch.
    target = target.flatten() if target.ndim < prediction.ndim else target.flatten(0, -2)
    return functional.cross_entropy(
        prediction.float().flatten(0, -2), target, weight=weight, label_smoothing=smoothing, reduction="none"
    ).mean()


def binary_cross_entropy(
    prediction: Tensor, target: Tensor, smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Sigmoid cross-entropy for several labels at once, the mean over samples and classes.

    Args:
        prediction: logits [B, classes].
        target: which labels hold, in [0, 1], [B, classes].
        smoothing: share of the target that is pulled to one half.
        weight: of each class [classes].
    """
    target = target * (1 - smoothing) + 0.5 * smoothing
    return functional.binary_cross_entropy_with_logits(prediction.float(), target, weight=weight)


def classification(multi_label: bool, smoothing: float = 0.0) -> Callable[..., Tensor]:
    """The loss of a classifier: cross-entropy, smoothed, or binary cross-entropy where a sample has several labels."""
    return binary_cross_entropy if multi_label else partial(cross_entropy, smoothing=smoothing)
