"""How weights begin."""

from __future__ import annotations

from torch import nn


def xavier(module: nn.Module) -> None:
    """Uniform Xavier weights and zero biases for every linear layer inside (MAE, VideoMAE; JAX ViT's own)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
