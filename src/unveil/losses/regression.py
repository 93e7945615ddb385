"""Losses of predicted values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PIECE_ON_CPU, PIECE = 2**21, 2**25
"""Predictions in a piece: on a CPU so many that they stay in its cache, on cards more, which are slow at small work."""


def _squares(difference: Tensor) -> Tensor:
    """The sum of squares."""
    if difference.device.type != "cpu":
        return difference.square().sum()
    # Needs no memory. In parts, since it may add one after the other: of 20 million squares the sum was 5e-5 off.
    parts = difference.flatten().split(max(2**16, difference.numel() // 256))
    return torch.stack([part.dot(part) for part in parts]).sum()


class _SquaredError(torch.autograd.Function):
    """The mean of squared differences. It keeps the differences alone, and hands their memory back as the gradient: PyTorch's own
    keeps both sides and zeroes new memory for the gradient first, which takes twice as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> Tensor:
        difference = prediction - target
        ctx.save_for_backward(difference)
        return _squares(difference) / difference.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (difference,) = ctx.saved_tensors  # raises when it is asked for twice: its values are gone
        return difference.mul_(gradient * (2 / difference.numel())), None


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over everything, computed in float32: two tensors of one shape → scalar.

    No gradient flows into the target, and it can be differentiated once.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"predictions of shape {tuple(prediction.shape)} and targets of {tuple(target.shape)}")
    prediction, target = prediction.float(), target.float().detach()
    if torch.compiler.is_compiling():
        return functional.mse_loss(prediction, target)
    return _SquaredError.apply(prediction, target)


class _SquaredErrorOfLinear(torch.autograd.Function):
    """A linear layer and the mean of its squared errors, some samples at a time, whose gradients are computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Callable[[slice], Tensor],
        samples: int,
        differentiate: bool,
    ) -> Tensor:
        wanted = [differentiate and needed for needed in ctx.needs_input_grad[:3]]
        of_features, of_weight, of_bias = (
            torch.zeros_like(x) if want and x is not None else None
            for x, want in zip((features, weight, bias), wanted, strict=True)
        )
        squares = features.new_zeros((), dtype=torch.float32)
        for start in range(0, len(features), samples):
            piece = slice(start, start + samples)
            rows = features[piece].flatten(0, 1)
            prediction = functional.linear(rows, weight, bias)
            wished = target(piece)
            if wished.shape != (*features[piece].shape[:2], len(weight)):
                raise ValueError(
                    f"features of shape {tuple(features[piece].shape)}, of which {len(weight)} values each are "
                    f"predicted, and targets of {tuple(wished.shape)}"
                )
            difference = prediction.float().sub_(wished.flatten(0, 1))
            squares += _squares(difference)
            gradient = difference.to(prediction.dtype)
            if of_features is not None:
                of_features[piece] = (gradient @ weight).view_as(of_features[piece])
            if of_weight is not None:
                of_weight += gradient.mT @ rows
            if of_bias is not None:
                of_bias += gradient.sum(0)
        ctx.save_for_backward(of_features, of_weight, of_bias)
        ctx.count = features[..., 0].numel() * len(weight)
        return squares / ctx.count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scale = gradient * (2 / ctx.count)
        return *(None if x is None else x.mul_(scale) for x in ctx.saved_tensors), None, None, None


def mse_of_linear(features: Tensor, layer: nn.Linear, target: Callable[[slice], Tensor]) -> Tensor:
    """`mse(layer(features), target)` of many predictions, that are never in memory all at once.

    Predictions, targets and differences of a few samples at a time fit a CPU's cache and cost a fraction of the memory; the
    gradients of an error are known with the error itself (Hsu et al. 2024, Liger Kernel, do the same with cross-entropy).

    Args:
        features: [B, N, D].
        layer: D → P. Its hooks are not called.
        target: `samples → [b, N, P]`, the targets of a slice of the samples.

    Returns:
        a scalar in float32, which can be differentiated once.

    Raises:
        ValueError: the shapes differ.
    """
    piece = PIECE_ON_CPU if features.device.type == "cpu" else PIECE
    samples = max(1, piece // max(1, features.shape[1] * layer.out_features))
    return _SquaredErrorOfLinear.apply(features, layer.weight, layer.bias, target, samples, torch.is_grad_enabled())  # pyright: ignore[reportReturnType]
