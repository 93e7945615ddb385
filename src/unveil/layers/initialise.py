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


def he(module: nn.Module) -> None:
    """Normal weights for every convolution inside, such that ReLUs keep the size of a signal (He et al. 2015)."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
