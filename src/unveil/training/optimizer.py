"""AdamW or SGD over groups of parameters: without weight decay where it does harm, slower near the input where asked."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from unveil.errors import UserError
from unveil.recipe import Optimizer


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, not to biases, norms, tokens and position tables (MAE, A.2; BEiT)."""
    return parameter.ndim > 1 and "positions" not in name and "token" not in name.rpartition(".")[2]


def groups(objective: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Parameter groups with `lr_scale` (layer-wise decay, 1912.07305 as used by BEiT and MAE), `lr_constant` and `weight_decay`.

    The layer of a parameter is what its encoder's `layer_of` says: 0 the embedding, 1 … depth the blocks, depth + 1 what
    comes after; everything outside the encoders has scale 1. Parameters of a module whose `constant_rate` is true learn at the
    peak rate all the time (SimSiam's predictor, 2011.10566, section 4.2).
    """
    scale: dict[int, float] = {}
    towers: dict[str, Any] = objective.towers  # type: ignore[assignment]
    for tower in towers.values():
        for name, parameter in tower.named_parameters():
            scale[id(parameter)] = optimizer.layer_decay ** (tower.depth + 1 - tower.layer_of(name))
    marked = [part for part in objective.modules() if getattr(part, "constant_rate", False)]
    constant = {id(parameter) for part in marked for parameter in part.parameters()}
    grouped: dict[tuple[float, bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            decay = optimizer.weight_decay if decays(name, parameter) else 0.0
            grouped[scale.get(id(parameter), 1.0), id(parameter) in constant, decay].append(parameter)
    return [
        {"params": parameters, "lr_scale": factor, "lr_constant": still, "weight_decay": decay}
        for (factor, still, decay), parameters in sorted(grouped.items(), key=lambda item: item[0])
    ]


def make(objective: nn.Module, optimizer: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser; its rates are set before every step.

    Raises:
        UserError: there is no such kind.
    """
    parameters = groups(objective, optimizer)
    # PyTorch's fused kernels exist for these devices only; elsewhere the for-each kernel is its default.
    fused = True if optimizer.fused and device.type in ("cuda", "cpu") else None
    if optimizer.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, betas=optimizer.betas, fused=fused)
    if optimizer.kind == "sgd":
        nesterov = optimizer.nesterov and optimizer.momentum > 0  # PyTorch refuses the one without the other
        if any(isinstance(parameter, DTensor) for parameter in objective.parameters()):
            fused = None  # PyTorch's fused SGD does not know parameters that are divided among processes
        return torch.optim.SGD(parameters, lr=0.0, momentum=optimizer.momentum, nesterov=nesterov, fused=fused)
    raise UserError(f"--optimizer.kind {optimizer.kind}: use adamw or sgd.")


def set_rate(optimizer: torch.optim.Optimizer, rate: float, peak: float) -> None:
    """The step's rate, or the peak rate for what learns at a constant one; times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = (peak if group["lr_constant"] else rate) * group["lr_scale"]
