"""Published checkpoints → our state: name maps only, one file for each foreign family."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from torch import Tensor

from unveil.errors import UserError
from unveil.recipe import Recipe


def load(system: str, state_dict: dict[str, Tensor], **hints: Any) -> Recipe:
    """Build a system of the size of a published checkpoint, and load that checkpoint into it.

    Widths, depths, patch and image sizes are read off the shapes; whether it was pre-trained or fine-tuned off the names.

    Args:
        system: "mae", "mae_st", "videomae" or "vit" (timm's names).
        state_dict: of the reference implementation, as its authors save it under "model".
        hints: what shapes do not tell: `num_heads`, `decoder_num_heads`, `crop`, `frames`, and any flag of the recipe.

    Returns:
        the recipe, its objective holding the weights.

    Raises:
        UserError: the system has no name map, or the checkpoint is not one of its.
    """
    if system not in {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}:
        raise UserError(f"There is no name map for the weights of {system!r}.")
    return importlib.import_module(f"{__name__}.{system}").load(state_dict, **hints)
