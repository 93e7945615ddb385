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


def truncated(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights cut off at one deviation, and zero biases, for every linear layer inside (BEiT)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std, a=-std, b=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def by_depth(encoder: nn.Module) -> None:
    """`truncated`, and the last layer of each branch of block n divided by √(2n): the deeper, the less it adds (BEiT)."""
    truncated(encoder)
    for number, block in enumerate(encoder.get_submodule("blocks").children(), start=1):
        for name in ("attn.proj", "mlp.fc2"):
            weight = block.get_parameter(f"{name}.weight")
            weight.data.div_(math.sqrt(2 * number))


def fan_in(module: nn.Module) -> None:
    """Normal weights of variance 1 / inputs, and zero biases, for every convolution and linear layer inside (DALL-E)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.normal_(part.weight, std=1 / math.sqrt(part.weight[0].numel()))
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def xavier_qkv(module: nn.Module) -> None:
    """Queries', keys' and values' weights, which are one matrix, as three (MoCo v3: else they begin too small)."""
    for name, part in module.named_modules():
        if name.endswith("qkv") and isinstance(part, nn.Linear):
            out, inside = part.weight.shape
            bound = math.sqrt(6 / (out // 3 + inside))
            nn.init.uniform_(part.weight, -bound, bound)
