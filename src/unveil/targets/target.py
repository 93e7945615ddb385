"""What every target offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from unveil.tokens import Patchify


class Target(Protocol):
    """What is to be predicted, only where it is asked for."""

    def __call__(self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        """Batch, the grid of the encoder's output, and flat indices [B, n] into it → values [B, n, P]."""
        ...


@runtime_checkable
class Drawable(Target, Protocol):
    """A target whose predictions can be looked at.

    Attributes:
        patchify: how the signal is cut.
        exact: a picture of the true values is the signal itself; otherwise it is worth looking at beside the prediction's.
    """

    patchify: Patchify
    exact: bool

    def signal(self, batch: Mapping[str, Tensor], grid: Sequence[int]) -> Tensor:
        """The part of the signal that is predicted [B, C, *S], in the batch's normalised units."""
        ...

    def picture(self, predictions: Tensor, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        """Predictions [B, n, P] → patches [B, n, P'] of that signal."""
        ...
