"""Full precision where half of it would change what is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, nothing is computed in the lower precision that training may have asked for (autocast)."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device, on which costs are counted
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
