"""unveil: learn from unlabelled signals by hiding part of them; then recognise, embed and search.

    recipe = unveil.build("videomae", size="S")
    run = unveil.pretrain("videomae", data="clips/", out="runs/a", size="S")
    run = unveil.load("runs/b")
    run.predict("clip.mp4"); run.embed(["clip.mp4"]); run.encoder

Importing this package imports nothing heavy; names are resolved when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unveil import weights
    from unveil.errors import DecodeError, UserError
    from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
    from unveil.run import Run, load
    from unveil.verbs import build, embed, evaluate, export, finetune, import_, predict, pretrain, report, search, train

_WHERE = {
    **dict.fromkeys(
        (
            "build",
            "pretrain",
            "finetune",
            "train",
            "evaluate",
            "predict",
            "embed",
            "search",
            "report",
            "import_",
            "export",
        ),
        "unveil.verbs",
    ),
    **dict.fromkeys(("Run", "load"), "unveil.run"),
    **dict.fromkeys(("Recipe", "Data", "Optimizer", "Schedule", "Loader"), "unveil.recipe"),
    **dict.fromkeys(("UserError", "DecodeError"), "unveil.errors"),
}

__all__ = [
    "Data",
    "DecodeError",
    "Loader",
    "Optimizer",
    "Recipe",
    "Run",
    "Schedule",
    "UserError",
    "build",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "import_",
    "load",
    "predict",
    "pretrain",
    "report",
    "search",
    "train",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    try:
        return importlib.import_module(f"unveil.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"unveil.{name}":
            raise
        raise AttributeError(f"module 'unveil' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
