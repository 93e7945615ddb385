"""What a trained network makes of the whole, unmasked sample (Huang et al. 2023, MAViL, stage 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import Fusion


class Contextual(nn.Module):
    """A teacher's features of every stream, after its streams have met: `(batch, asked) → {stream: [B, n, D]}`.

    The teacher sees everything, once for all streams. Its features are normalised token by token to mean 0 and variance 1, without
    learned factors. It does not learn, and is saved with the objective.

    Args:
        teacher: frozen from here on.
    """

    def __init__(self, teacher: Fusion):
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        self.eval()

    @property
    def width(self) -> int:
        """Values for each token."""
        return self.teacher.width

    def train(self, mode: bool = True) -> Self:
        """Stays as it is: what it says is not to change."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor], asked: Mapping[str, Any]) -> dict[str, Tensor]:
        parts = dict(zip(self.teacher.streams, self.teacher(batch).stages[-1], strict=True))
        return {
            key: functional.layer_norm(parts[key].gather(where.indices).x.float(), (self.width,))
            for key, where in asked.items()
        }
