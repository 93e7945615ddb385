"""Half precision where it is asked for, and full precision where half of it would change what is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from unveil.errors import UserError


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, nothing is computed in the lower precision that training may have asked for (autocast)."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device, on which costs are counted
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def lowered(device: torch.device, precision: str, own: str = "auto") -> AbstractContextManager[Any]:
    """Inside, matrix products and convolutions are computed in bf16 where `precision` is "bf16"; "32" changes nothing.

    Args:
        device: where.
        precision: "32" or "bf16".
        own: the recipe's own precision.

    Raises:
        UserError: another precision, or one that the recipe does not bear.
    """
    if precision not in ("32", "bf16"):
        raise UserError(f"--precision {precision}: use 32 or bf16.")
    if precision == "32":
        return nullcontext()
    if own == "32":
        raise UserError(
            "--precision bf16: this recipe computes in 32 bits alone, see `unveil recipes`. Leave the flag out."
        )
    return torch.autocast(device.type, dtype=torch.bfloat16)
