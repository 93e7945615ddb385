"""From a recipe's name and flags to the `Recipe`.

Flags are of two kinds, told apart by their names alone: the parameters of the recipe's function (`size`, `ratio`), and the
fields of the `Recipe` it returns (`optimizer.lr`, `schedule.epochs`, `loader.workers`, `ema`). The same names serve on
the command line, in a `--config` file, in a module's `PRESETS` and in Python.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from unveil.errors import UserError
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule

#: Prefix of a dotted flag → field of `Recipe` and its type. `--data` names files, so the fields of `Recipe.data` are `--sample.…`.
GROUPS: dict[str, tuple[str, type]] = {
    "optimizer": ("optimizer", Optimizer),
    "schedule": ("schedule", Schedule),
    "loader": ("loader", Loader),
    "sample": ("data", Data),
}
#: Annotations (as written in recipe.py) of the fields that a flag can set; the others hold parts, not values.
_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "tuple[float, float]": tuple[float, float],
    "tuple[float, ...]": tuple[float, ...],
}


class Flag(NamedTuple):
    """A flag of a recipe: its name, type, default (None for a field: the recipe's own value stands) and help."""

    name: str
    type: Any
    default: Any
    help: str


def describe(owner: Any) -> dict[str, str]:
    """The `Args:` section of a docstring, name → text."""
    from docstring_parser import parse

    text = {}
    for parameter in parse(inspect.getdoc(owner) or "").params:
        for name in parameter.arg_name.split(","):
            text[name.strip()] = (parameter.description or "").replace("\n", " ")
    return text


def field_flags() -> dict[str, Flag]:
    """Every field of a `Recipe` that a flag can set."""
    flags = {}
    for prefix, owner in {**{f"{name}.": group for name, (_, group) in GROUPS.items()}, "": Recipe}.items():
        text = describe(owner)
        for item in dataclasses.fields(owner):
            if item.type in _TYPES:
                name = prefix + item.name
                flags[name] = Flag(name, _TYPES[str(item.type)], None, text.get(item.name, ""))
    return flags


def recipe_flags(recipe: Callable[..., Recipe]) -> dict[str, Flag]:
    """The parameters of a recipe's function."""
    text = describe(recipe)
    hints = typing.get_type_hints(recipe)
    return {
        name: Flag(name, hints.get(name, str), parameter.default, text.get(name, ""))
        for name, parameter in inspect.signature(recipe).parameters.items()
    }


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names what may have been meant, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def as_flag(name: str) -> str:
    """`drop_path` → `--drop-path`, as a person types it."""
    return "--" + name.replace("_", "-")


def presets(recipe: Callable[..., Recipe]) -> dict[str, dict[str, Any]]:
    """The presets of the module that holds a recipe; a preset may hold flags for one of its functions alone."""
    module = inspect.getmodule(recipe)
    return getattr(module, "PRESETS", {}) if module else {}


def _own(preset: Mapping[str, Any], recipe: Callable[..., Recipe]) -> Mapping[str, Any] | None:
    """A preset's flags for one function of a module, which may be a mapping of mappings: {"videomae": {…}, "finetune": {…}}. None
    where it has none for that function."""
    if any(isinstance(value, Mapping) for value in preset.values()):
        return preset.get(recipe.__name__)
    return preset


def expand(recipe: Callable[..., Recipe], preset: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags with the preset's beneath them.

    Raises:
        UserError: no such preset; no such flag (with the nearest name).
    """
    merged: dict[str, Any] = {}
    if preset:
        known = {name: own for name, values in presets(recipe).items() if (own := _own(values, recipe)) is not None}
        if preset not in known:
            raise UserError(
                f"--preset {preset}: {recipe.__name__} has no such preset."
                + (f" It has: {', '.join(known)}." if known else " It has none.")
            )
        merged.update(known[preset])
    merged.update(flags)
    known_flags = {**field_flags(), **recipe_flags(recipe)}
    for name in merged:
        if name not in known_flags:
            raise UserError(
                f"{as_flag(name)} is not a flag of {recipe.__name__}.{nearest(as_flag(name), map(as_flag, known_flags))} "
                f"See: unveil recipes {recipe.__name__}"
            )
    return merged


def assemble(recipe: Callable[..., Recipe], flags: Mapping[str, Any]) -> Recipe:
    """Call the recipe with its own parameters among `flags`, then set the fields that the others name."""
    own = recipe_flags(recipe)
    try:
        built = recipe(**{name: value for name, value in flags.items() if name in own})
    except (ValueError, KeyError) as error:
        raise UserError(f"{recipe.__name__} cannot be built with these flags: {error}") from error
    if not isinstance(built, Recipe):
        raise UserError(f"{recipe.__name__} returned {type(built).__name__}; a recipe returns an unveil.Recipe.")
    fields = field_flags()
    for name, value in flags.items():
        if name in own:
            continue
        group, _, item = name.rpartition(".")
        target: Any = getattr(built, GROUPS[group][0]) if group else built
        kind = typing.get_origin(fields[name].type) or fields[name].type
        setattr(target, item, value if isinstance(value, str) else kind(value))
    return built


def build(recipe: str | Callable[..., Recipe], *, preset: str | None = None, **flags: Any) -> Recipe:
    """Build a system.

    Args:
        recipe: a name (`"videomae"`, `"videomae:finetune"`), a file and function (`"my.py:mine"`), or the function.
        preset: a named set of flags, e.g. "small".
        flags: the recipe's parameters, and fields as `**{"optimizer.lr": 1e-3}`.

    Returns:
        The recipe; `.objective` is an `nn.Module` with random weights.

    Raises:
        UserError: no such recipe, preset or flag.
    """
    from unveil import recipes

    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    return assemble(function, expand(function, preset, flags))


def name_of(recipe: str | Callable[..., Recipe]) -> str:
    """The name under which a run folder can find the recipe again."""
    if isinstance(recipe, str):
        return recipe
    module = recipe.__module__
    if module.startswith("unveil.recipes."):
        stem = module.removeprefix("unveil.recipes.")
        return stem if stem == recipe.__name__.removesuffix("_") else f"{stem}:{recipe.__name__}"
    return f"{inspect.getfile(recipe)}:{recipe.__name__}"


def learns_from_labels(function: Callable[..., Any]) -> bool:
    """A recipe that learns from labels has a number of classes; nothing else tells the two kinds apart."""
    return "num_classes" in inspect.signature(function).parameters
