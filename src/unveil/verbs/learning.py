"""Files → a run: pretrain, finetune, train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.errors import UserError
from unveil.flags import learns_from_labels
from unveil.job import Paths, carry_out, finetuning_of, trained_of

if TYPE_CHECKING:
    from unveil.recipe import Recipe
    from unveil.run import Run


def pretrain(
    recipe: str | Callable[..., Recipe], *, data: Paths, out: str | Path, start: str | Path | None = None, **flags: Any
) -> Run:
    """Learn from files without labels.

    Args:
        recipe: name of a system (see: unveil recipes), or file.py:function for one of your own.
        data: folder of files, a file, or a labels .csv; may be given several times.
        out: run folder to write. If it holds the same run, that run is resumed.
        start: run folder or weights file to start from.
        flags: the fields of `Training`, the recipe's parameters and the fields of its Recipe ("optimizer.lr").

    Returns:
        The finished run.

    Raises:
        UserError: a folder, a flag or a file is wrong; the text says which.
    """
    from unveil import recipes

    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    if learns_from_labels(function):
        raise UserError(f"{function.__name__} learns from labels. Use: unveil train {function.__name__} --data …")
    return carry_out("pretrain", recipe, data, out, start, flags)


def finetune(run: str | Path, *, data: Paths, out: str | Path, **flags: Any) -> Run:
    """Teach a pre-trained run to tell classes apart, with its system's published fine-tuning settings.

    Args:
        run: run folder of a pre-training (or of an earlier fine-tuning).
        data: labelled files: a folder per class, or a folder with labels.csv; may be given several times.
        out: run folder to write. If it holds the same run, that run is resumed.
        flags: the fields of `Training`, parameters of the fine-tuning recipe and fields of its Recipe. Parameters that it
            shares with the pre-training (size, frames, crop …) are that run's unless given.

    Returns:
        The finished run.

    Raises:
        UserError: a folder, a flag or a file is wrong; the text says which.
    """
    name, flags = finetuning_of(run, flags)
    return carry_out("finetune", name, data, out, run, flags)


def train(
    recipe: str | Callable[..., Recipe], *, data: Paths, out: str | Path, start: str | Path | None = None, **flags: Any
) -> Run:
    """Learn from labels, from scratch (or from --start).

    Args:
        recipe: name of a system. For one that pre-trains, its fine-tuning network is trained from random weights; one that has
            none, such as a tokenizer (dvae), is trained itself, and needs no labels: there `pretrain` is the same.
        data: labelled files: a folder per class, or a folder with labels.csv; may be given several times.
        out: run folder to write. If it holds the same run, that run is resumed.
        start: run folder or weights file to start from.
        flags: the fields of `Training`, the recipe's parameters and the fields of its Recipe ("optimizer.lr").

    Returns:
        The finished run.

    Raises:
        UserError: a folder, a flag or a file is wrong; the text says which.
    """
    return carry_out("train", trained_of(recipe), data, out, start, flags)
