"""Published checkpoints → our state: name maps only, one file for each foreign family."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from torch import Tensor

from unveil.errors import UserError
from unveil.recipe import Recipe
from unveil.state_dict import read_state_dict


def load(system: str, weights: dict[str, Tensor] | str | Path, **hints: Any) -> Recipe:
    """Build a system of the size of a published checkpoint, and load that checkpoint into it.

    Widths, depths, patch and image sizes are read off the shapes; whether it was pre-trained or fine-tuned off the names.

    Args:
        system: "mae", "mae_st", "videomae" or "vit" (timm's names).
        weights: the published file (`.pth`, `.safetensors`; nothing in it is run), or its state dict: what the authors of the
            reference implementation save under "model".
        hints: what shapes do not tell: `num_heads`, `decoder_num_heads`, `crop`, `frames`, and any flag of the recipe.

    Returns:
        the recipe, its objective holding the weights.

    Raises:
        UserError: the system has no name map, the checkpoint is not one of its, or the file is refused.
    """
    if system not in {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}:
        raise UserError(f"There is no name map for the weights of {system!r}.")
    state = weights if isinstance(weights, dict) else read_state_dict(weights)
    try:
        return importlib.import_module(f"{__name__}.{system}").load(state, **hints)
    except KeyError as error:
        raise UserError(f"These are not the weights of {system}: they have no {error}.") from error
