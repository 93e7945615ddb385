"""Published checkpoints → our state: name maps only, one file for each foreign family.

A map is a function `convert(state, **hints) -> Converted`. Sizes are read off the shapes; what kind of network it is, off
the names; what neither tells is a hint (`num_heads`), which has a family's rule for a default.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unveil.errors import UserError
from unveil.fitting import Fitted, fit
from unveil.flags import assemble, expand
from unveil.recipe import Recipe
from unveil.state_dict import read_state_dict
from unveil.weights._converted import Converted, Reader
from unveil.weights._transformers import Reverted, revert

__all__ = [
    "HINTS", "Converted", "Reader", "Reverted", "build", "convert", "deviations", "families", "family", "load", "revert",
]  # fmt: skip

#: What a name map may be told that is no flag of a recipe.
HINTS = ("num_heads", "decoder_num_heads", "text_num_heads", "bgr")

#: What training scripts put before every name: DistributedDataParallel, torch.compile, Lightning.
WRAPPERS = ("module.", "_orig_mod.", "model.")


def families() -> list[str]:
    """The systems whose published checkpoints can be read."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def family(system: str) -> ModuleType:
    """The name map of a system.

    Raises:
        UserError: there is none.
    """
    if system not in families():
        raise UserError(f"There is no name map for the weights of {system!r}; there are: {', '.join(families())}.")
    return importlib.import_module(f"{__name__}.{system}")


def convert(system: str, weights: dict[str, Tensor] | str | Path, **hints: Any) -> Converted:
    """A published checkpoint in our names, with the recipe and flags of its network.

    Args:
        system: one of `families()`.
        weights: the published file (`.pth`, `.safetensors`; nothing in it is run), or its state dict.
        hints: what shapes do not tell: `num_heads`, `decoder_num_heads`, `text_num_heads`, `bgr`; flags of the recipe that settle
            what the checkpoint leaves open (`crop` and `frames` of positions that are not saved).

    Raises:
        UserError: the system has no name map, or one that has no use for a hint; the checkpoint is not one of its, or the
            file is refused.
    """
    module = family(system)
    known = inspect.signature(module.convert).parameters
    for hint in HINTS:
        if hint in hints and hint not in known:
            raise UserError(
                f"--{hint.replace('_', '-')}: the tensors of {system} tell all there is; leave the flag out."
            )
    state = weights if isinstance(weights, dict) else read_state_dict(weights)
    for wrapper in WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    try:
        return module.convert(state, **hints)
    except (KeyError, UserError) as error:
        text = str(error) if isinstance(error, UserError) else f"These are not the weights of {system}: no {error}."
        others = [name for name in families() if name != system and _fits(name, state)]
        whose = (
            f"They look like those of {' or '.join(others)}."
            if others
            else f"Its names: {', '.join(list(state)[:6])} …"
        )
        raise UserError(f"{text} {whose}") from error


def _fits(system: str, state: dict[str, Tensor]) -> bool:
    """Whether a name map finds a place for every tensor of a checkpoint."""
    try:
        return not family(system).convert(state).unused
    except (KeyError, UserError):
        return False


def build(converted: Converted, partial: bool = False, source: str = "", **flags: Any) -> tuple[Recipe, Fitted]:
    """The network of a converted checkpoint, with its weights in it.

    Args:
        converted: what `convert` returned.
        partial: also when tensors are missing or left over.
        source: name of the checkpoint, for the report.
        flags: of the recipe, where the network shall differ: other frames, crop, patches, classes. Positions are
            interpolated, patch embeddings resampled, heads begun anew; the report says so.

    Returns:
        the recipe, and what became of each tensor.

    Raises:
        UserError: tensors are missing or left over (unless `partial`), or a flag is wrong.
    """
    from unveil import recipes

    function = recipes.find(converted.recipe)
    if flags.get("size", converted.flags.get("size")) != converted.flags.get("size"):
        raise UserError(f"--size {flags['size']}: the checkpoint's is {converted.flags['size']}; leave the flag out.")
    recipe = assemble(function, expand(function, None, {**converted.flags, **flags}))
    report = fit(recipe.objective, converted.state, source)
    recipe.objective.started(report.fresh)
    report.unused += converted.unused
    parameters = dict(recipe.objective.named_parameters())
    missing = [n for n in report.fresh if n in parameters and not n.startswith(converted.absent)]
    # What a flag made another shape is begun anew; what no flag did is no checkpoint of this network.
    strange = [] if flags else [*report.replaced]
    if (missing or strange or report.unused) and not partial:
        told = [
            f"{text}: {', '.join(names)}"
            for text, names in (
                ("missing", missing),
                ("of another shape", strange),
                ("left over", report.unused),
            )
            if names
        ]
        raise UserError(
            f"These are not quite the weights of {converted.recipe}. {'; '.join(told)}. `partial` (--partial) loads the rest."
        )
    if not report.loaded:
        raise UserError(f"Nothing of the checkpoint fits {converted.recipe} with these flags.")
    return recipe, report


def load(system: str, weights: dict[str, Tensor] | str | Path, *, partial: bool = False, **hints: Any) -> Recipe:
    """Build a system of the size of a published checkpoint, and load that checkpoint into it.

    Widths, depths, patch and image sizes are read off the shapes; whether it was pre-trained or fine-tuned off the names.
    What had to be interpolated, begun anew or assumed is said as a warning.

    Args:
        system: one of `families()`.
        weights: the published file (`.pth`, `.safetensors`; nothing in it is run), or its state dict.
        partial: load what fits, although tensors are missing or left over.
        hints: what shapes do not tell, `num_heads`, `decoder_num_heads`, `text_num_heads` and `bgr`; and any flag of the recipe, for a
            network that differs from the checkpoint's: `frames`, `crop`, `patch`, `num_classes`.

    Returns:
        the recipe, its objective holding the weights.

    Raises:
        UserError: the system has no name map, the checkpoint is not one of its, or the file is refused.
    """
    converted = convert(system, weights, **hints)
    flags = {name: value for name, value in hints.items() if name not in HINTS}
    with torch.random.fork_rng(devices=[]):
        recipe, report = build(converted, partial, system, **flags)
    for line in deviations(converted, report):
        warnings.warn(line, stacklevel=2)
    return recipe


def deviations(converted: Converted, report: Fitted) -> list[str]:
    """Sentences on what is not the checkpoint's: what was resized, begun anew, left out or assumed."""
    tables = {name for name in report.fresh if name.endswith((".table", ".native"))}
    told = Fitted(
        report.source, report.loaded, report.resized, report.replaced,
        [name for name in report.fresh if name not in tables], report.unused,
    )  # fmt: skip
    return [*told.sentences()[1:], *converted.notes]
