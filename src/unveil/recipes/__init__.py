"""The systems, one file each. This folder is the registry: a recipe is found by its file's name."""

from __future__ import annotations

import difflib
import importlib
import keyword
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from unveil.errors import UserError
from unveil.recipe import Recipe


def names() -> list[str]:
    """The recipes there are, in alphabetical order; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Callable[..., Any]:
    """A recipe by name: `videomae`, `videomae:finetune`, `my.py:mine` (a file) or `package.module:function`.

    A file is code, and is run. Of an installed module only a function that is declared to return a `Recipe` is taken.

    Raises:
        UserError: there is no such recipe, file, module or function, or it is none that returns a recipe.
    """
    where, colon, function = name.partition(":")
    if not colon:
        if where not in names():
            raise UserError(
                f"There is no recipe {name!r}{_nearest(name, names())}. `unveil recipes` lists them; "
                "a recipe of your own is given as my.py:function."
            )
        function = f"{where}_" if keyword.iskeyword(where) else where  # `def nonlocal` cannot be
    if where in names():
        where = f"{__name__}.{where}"
    module = _load(Path(where)) if where.endswith(".py") else _import(where, name)
    recipe = getattr(module, function, None)
    if not callable(recipe):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{where} has no function {function!r}{_nearest(function, found)} (recipe {name!r}).")
    if not where.endswith(".py") and not _returns_recipe(recipe):
        # A name may come out of the run.json of a stranger's run, and with it the arguments: os:system must not be called.
        raise UserError(
            f"{name} is no recipe: a function of an installed module is one if it is declared to return one (-> Recipe)."
        )
    return recipe


def _returns_recipe(function: Callable[..., Any]) -> bool:
    declared = getattr(function, "__annotations__", {}).get("return")
    return declared is Recipe or (isinstance(declared, str) and declared.rpartition(".")[2].strip("'\"") == "Recipe")


def module_of(recipe: Callable[..., Any]) -> ModuleType:
    """The module that a recipe was found in; it may hold `PRESETS` and `finetune`."""
    return sys.modules[recipe.__module__]


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _import(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UserError(
            f"There is no module {error.name!r} (recipe {name!r}). A file is given with its suffix: my.py:mine."
        ) from error


def _load(path: Path) -> ModuleType:
    """Import a file under its own name, from its own folder, so that worker processes started afresh find it too."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UserError(f"There is no file {path}; a recipe of your own is given as my.py:function.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    if getattr(module, "__file__", None) is None or Path(str(module.__file__)).resolve() != path:
        raise UserError(f"{path} cannot be imported: another module is called {path.stem!r}. Rename the file.")
    return module
