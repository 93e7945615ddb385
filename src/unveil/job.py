"""From what a training verb was asked to a run folder, begun or resumed, and trained.

Settles the flags, looks at the data, refuses what cannot work before anything is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.errors import UserError
from unveil.flags import learns_from_labels
from unveil.screen import say

if TYPE_CHECKING:
    from unveil.recipe import Recipe
    from unveil.run import Run
    from unveil.training import Plan

Paths = str | Path | Sequence[str | Path]


def paths_of(data: Paths) -> list[Path]:
    return [Path(data)] if isinstance(data, str | Path) else [Path(path) for path in data]


@dataclass
class Training:
    """How a run is carried out: flags that pretrain, finetune and train share, beside the recipe's own.

    Args:
        preset: a named set of the recipe's flags, e.g. small (sane on a CPU or a small GPU).
        max_steps: stop after so many steps; warm-up and schedule shrink to fit. 0 writes the weights as initialised.
        seed: of everything random.
        device: auto, cpu, cuda or mps.
        devices: processes, one device each. Under torchrun these are the processes it started.
        strategy: ddp (every device holds the network) or fsdp (it is divided among them).
        checkpoint_every: seconds between checkpoints; 0 for one after every step.
        keep: checkpoints that are kept, beside the weights that scored best.
        val_fraction: share of the labelled files held out for validation (0.1 when there are labels); 0 for none.
        data_weight: how often the files of a folder are seen in an epoch, one number for each --data, in the same order; once unless
            given.
        balance: see files of rare labels more often: of each the sum over its labels of 1 / the number of files that have it.
        max_bad: share of unreadable files above which the run stops.
        logger: tensorboard, wandb or mlflow, besides log.jsonl; may be given several times.
        overwrite: begin again even if --out holds a run.
        quiet: print nothing.
    """

    preset: str | None = None
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    strategy: str = "ddp"
    checkpoint_every: float = 300.0
    keep: int = 2
    val_fraction: float | None = None
    data_weight: Sequence[str | float] | float = ()
    balance: bool = False
    max_bad: float = 0.1
    logger: Sequence[str] = ()
    overwrite: bool = False
    quiet: bool = False


def trained_of(recipe: str | Callable[..., Recipe]) -> str | Callable[..., Recipe]:
    """What `train` trains from scratch: what tells classes apart, or, of a system that has nothing such, the system itself."""
    from unveil import recipes

    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    lonely = not learns_from_labels(function) and not hasattr(recipes.module_of(function), "finetune")
    return recipe if lonely else supervised_of(recipe)


def supervised_of(recipe: str | Callable[..., Recipe]) -> str | Callable[..., Recipe]:
    """The recipe itself when it learns from labels, otherwise its module's `finetune`.

    Raises:
        UserError: the module has none.
    """
    from unveil import recipes

    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    if learns_from_labels(function):
        return recipe
    module = recipes.module_of(function)
    sibling = getattr(module, "finetune", None)
    if sibling is None:
        raise UserError(
            f"{function.__name__} learns without labels, and {module.__name__} has no function `finetune(num_classes, …)` "
            "that says how to train its encoder with labels. Add one beside it (unveil/recipes/videomae.py shows how)."
        )
    return sibling


def finetuning_of(run: str | Path, flags: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The fine-tuning recipe's name for a run, and the flags with those it shares with the run."""
    from unveil import recipes
    from unveil.flags import name_of
    from unveil.run import load

    opened = load(run)
    function = recipes.find(opened.info["recipe"])
    if not learns_from_labels(function):
        function = supervised_of(function)
        assert callable(function)
    own = inspect.signature(function).parameters
    decided = {"num_classes", "multi_label"}
    shared = {k: v for k, v in opened.info["flags"].items() if k in own and k not in decided}
    name = name_of(function) if function is not recipes.find(opened.info["recipe"]) else opened.info["recipe"]
    return name, {**shared, **flags}


def carry_out(
    verb: str,
    recipe: str | Callable[..., Recipe],
    data: Paths,
    out: str | Path,
    start: str | Path | None,
    flags: dict[str, Any],
) -> Run:
    from unveil import recipes
    from unveil.data.mixture import parsed_weights
    from unveil.flags import expand, name_of
    from unveil.run import choose_device, load
    from unveil.training import fit, processes
    from unveil.training.guards import alone, writing

    how = Training(**{f.name: flags.pop(f.name) for f in fields(Training) if f.name in flags})
    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    device = choose_device(how.device)
    given = frozenset(flags)
    flags = expand(function, how.preset, flags)
    out = Path(out)
    weights = parsed_weights(how.data_weight, len(paths_of(data)))
    if weights and how.balance:
        raise UserError(
            "--balance and --data-weight both say how often a file is seen. Give one of them: --balance goes by labels, --data-weight "
            "by folders."
        )
    asked = {
        "recipe": name_of(recipe),
        "flags": flags,
        "data": [str(path.resolve()) for path in paths_of(data)],
        **({"data_weight": weights} if weights else {}),
        **({"balance": True} if how.balance else {}),
        "start": str(Path(start).resolve()) if start else None,
        "max_steps": how.max_steps,
        "seed": how.seed,
        "val_fraction": how.val_fraction,
    }
    with alone(out) if processes.rank() == 0 else nullcontext():
        with writing(out):
            plan = processes.on_first(lambda: _settle(verb, function, asked, given, paths_of(data), out, how), device)
        if plan is not None:
            fit(plan)
    return load(out, how.device)


def _settle(
    verb: str,
    function: Callable[..., Recipe],
    asked: dict[str, Any],
    given: frozenset[str],
    data: list[Path],
    out: Path,
    how: Training,
) -> Plan | None:
    """What is to be trained, in a run folder that is there: a new one, or one that goes on. None: it is complete."""
    from unveil.begin import BEGUN, begin, say_if_changed
    from unveil.run import difference, load
    from unveil.training import Plan
    from unveil.training.guards import clear

    if how.overwrite and (out / "run.json").is_file():
        clear(out)
    if (out / "run.json").is_file():
        run = load(out, how.device)
        changed = difference(run.info["asked"], asked)
        if changed or run.info["verb"] != verb:
            listed = "\n".join(f"  {line}" for line in changed) or f"  it was made by: unveil {run.info['verb']}"
            raise UserError(
                f"{out} holds another run:\n{listed}\nUse the same flags to resume it, another --out, or --overwrite."
            )
        if run.info["status"] == "complete" and not run.has_weights:
            say(how.quiet, f"{out} was complete, but its weights are missing or damaged: they are made again")
        elif run.info["status"] == "complete":
            say(how.quiet, f"{out} is complete ({run.info['steps']} steps); nothing to do. --overwrite begins again.")
            return None
        say_if_changed(run, function, data, how)
    else:
        strange = [path.name for path in out.iterdir() if not path.match(".*") and path.name not in BEGUN]
        if strange:
            raise UserError(
                f"--out {out} exists and is no run folder (it holds {strange[0]}). Name a new folder, or empty this one."
            )
        run = begin(verb, function, asked, given, data, out, how)
    return Plan(
        out=out,
        recipe=run.info["recipe"],
        flags=run.info["flags"],
        classes=run.classes,
        seed=how.seed,
        max_steps=how.max_steps,
        start=asked["start"],
        max_bad=how.max_bad,
        loggers=list(how.logger),
        device=how.device,
        devices=how.devices,
        strategy=how.strategy,
        precision=run.info["precision"],
        checkpoint_every=how.checkpoint_every,
        keep=max(1, how.keep),
        quiet=how.quiet,
    )
