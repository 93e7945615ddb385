"""How weights begin."""

from __future__ import annotations

import math

from torch import nn


def xavier(module: nn.Module) -> None:
    """Uniform Xavier weights and zero biases for every linear layer inside (MAE, VideoMAE; JAX ViT's own)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def he(module: nn.Module) -> None:
    """Normal He weights, by the number of outputs, and zero biases for every convolution inside (He et al. 2015)."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def xavier_qkv(module: nn.Module) -> None:
    """Queries', keys' and values' weights, which are one matrix, as three (MoCo v3: else they begin too small)."""
    for name, part in module.named_modules():
        if name.endswith("qkv") and isinstance(part, nn.Linear):
            out, inside = part.weight.shape
            bound = math.sqrt(6 / (out // 3 + inside))
            nn.init.uniform_(part.weight, -bound, bound)
