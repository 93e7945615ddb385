"""From what a training verb was asked to a run folder, begun or resumed, and trained.

Settles the flags, looks at the data, refuses what cannot work before anything is written.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.recipe import Recipe
    from unveil.run import Run
    from unveil.training import Plan

Paths = str | Path | Sequence[str | Path]

BEGUN = {"manifest.parquet", "validation.parquet", "bad.jsonl"}
"""What a kill can leave in a run folder that has no run.json yet: that is written last."""


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
    max_bad: float = 0.1
    logger: Sequence[str] = ()
    overwrite: bool = False
    quiet: bool = False


def learns_from_labels(function: Callable[..., Any]) -> bool:
    """A recipe that learns from labels has a number of classes; nothing else tells the two kinds apart."""
    return "num_classes" in inspect.signature(function).parameters


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
    from unveil.flags import expand, name_of
    from unveil.run import choose_device, load
    from unveil.training import fit, processes
    from unveil.training.guards import alone, writing

    how = Training(**{f.name: flags.pop(f.name) for f in fields(Training) if f.name in flags})
    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    device = choose_device(how.device)
    flags = expand(function, how.preset, flags)
    out = Path(out)
    asked = {
        "recipe": name_of(recipe),
        "flags": flags,
        "data": [str(path.resolve()) for path in paths_of(data)],
        "start": str(Path(start).resolve()) if start else None,
        "max_steps": how.max_steps,
        "seed": how.seed,
        "val_fraction": how.val_fraction,
    }
    with alone(out) if processes.rank() == 0 else nullcontext():
        with writing(out):
            plan = processes.on_first(lambda: _settle(verb, function, asked, paths_of(data), out, how), device)
        if plan is not None:
            fit(plan)
    return load(out, how.device)


def _settle(
    verb: str, function: Callable[..., Recipe], asked: dict[str, Any], data: list[Path], out: Path, how: Training
) -> Plan | None:
    """What is to be trained, in a run folder that is there: a new one, or one that goes on. None: it is complete."""
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
        _say_if_changed(run, function, data, how)
    else:
        strange = [path.name for path in out.iterdir() if not path.match(".*") and path.name not in BEGUN]
        if strange:
            raise UserError(
                f"--out {out} exists and is no run folder (it holds {strange[0]}). Name a new folder, or empty this one."
            )
        run = _begin(verb, function, asked, data, out, how)
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


def say(quiet: bool, text: str) -> None:
    if not quiet:
        from rich.console import Console

        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def _begin(
    verb: str, function: Callable[..., Recipe], asked: dict[str, Any], data: list[Path], out: Path, how: Training
) -> Run:
    """Look at the data, settle what they decide, and write the run folder."""
    import torch

    from unveil.data import Manifest, signal_of, split
    from unveil.flags import assemble, recipe_flags
    from unveil.run import load, new_info
    from unveil.storage import replacing, write_json, write_lines

    flags = dict(asked["flags"])
    own = recipe_flags(function)
    if "frames" in own and own["frames"].default is None and "frames" not in flags and signal_of(data) == "video":
        flags["frames"] = 16  # the field's usual clip; a recipe whose `frames` is None without it reads images
    with torch.device("meta"):
        sketch = assemble(function, flags)
    listed = Manifest.scan(data, sketch.data.signal.suffixes, warn=lambda text: say(how.quiet, f"warning: {text}"))
    manifest, bad = _readable(listed, how)
    supervised = learns_from_labels(function)
    fraction = asked["val_fraction"]
    if supervised:
        manifest = _labelled(manifest, how.quiet)
    classes = manifest.classes
    train_rows, held_out = manifest, None
    if fraction == 0:
        train_rows = manifest.select("train", "")
    elif classes or manifest.splits != [""]:
        train_rows, held_out = split(manifest, 0.1 if fraction is None else fraction, seed=asked["seed"])
    _warn_of_copies(train_rows, held_out, how.quiet)
    if supervised:
        flags.setdefault("num_classes", len(classes))
        if "multi_label" in own:
            flags.setdefault("multi_label", manifest.multi_label)
        if flags["num_classes"] != len(classes):
            raise UserError(
                f"--num-classes {flags['num_classes']}: the data have {len(classes)} classes. Leave the flag out; "
                "the head is made for the classes of the data, whatever the start weights were trained on."
            )
    for name, rows in (("manifest.parquet", train_rows), ("validation.parquet", held_out)):
        if rows is not None and len(rows):
            with replacing(out / name) as temporary:
                rows.save(temporary)
    if bad:
        write_lines(out / "bad.jsonl", [{"path": path, "error": error} for path, error in bad])
    info = new_info(
        verb,
        asked["recipe"],
        flags,
        asked=asked,
        classes=classes,
        multi_label=manifest.multi_label,
        precision=sketch.precision,
        preprocessing=sketch.data.described(),
        files={"train": len(train_rows), "validation": len(held_out) if held_out is not None else 0, "bad": len(bad)},
        data_hash=listed.hash,
        data_bytes=_bytes(listed),
        data_files=len(listed.table["path"].unique()),
        licence_of_start=_licence(asked["start"]),
    )
    write_json(out / "run.json", info)
    return load(out, how.device)


def _say_if_changed(run: Run, function: Callable[..., Recipe], data: list[Path], how: Training) -> None:
    """Warn when the files are no longer those that the run began with: others, other labels, other content or size."""
    import torch

    from unveil.data import Manifest
    from unveil.flags import assemble

    with torch.device("meta"):
        signal = assemble(function, run.info["flags"]).data.signal
    goes_on = "It goes on with the files it began with; --overwrite begins again with what is there now."
    try:
        now = Manifest.scan(data, signal.suffixes, warn=lambda text: say(how.quiet, f"warning: {text}"))
    except UserError as error:
        say(how.quiet, f"warning: the data cannot be listed any more ({error}) {goes_on}")
        return
    if now.agrees(run.info["data_hash"]) and _bytes(now, checked=False) == run.info["data_bytes"]:
        return
    then = [Manifest.load(path) for name in BEGUN if (path := run.path / name).suffix == ".parquet" and path.is_file()]
    before = {path for manifest in then for path in manifest.column("path")} | {bad["path"] for bad in run.bad_files()}
    after = set(now.column("path"))
    gone = len(before - after)
    new = len(after) - (run.info["data_files"] - gone)
    told = [f"{count} {what}" for count, what in ((new, "new"), (gone, "gone")) if count > 0]
    what = f"files: {', '.join(told)}" if told else "other contents, labels or times"
    say(how.quiet, f"warning: the data have changed since {run.path} began ({what}). {goes_on}")


def _bytes(manifest: Manifest, checked: bool = True) -> int:
    """The size of all files together: it tells a changed file without reading it.

    Args:
        manifest: of the files.
        checked: of files that `unveil data check` has seen take their size then; no file is looked at.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [name for name in ("path", "size")[: 1 + checked] if name in manifest.table.column_names]
    files = manifest.table.select(columns)
    files = files if "size" in columns else files.append_column("size", pa.nulls(len(files), pa.int64()))
    files = files.group_by(["path", "size"]).aggregate([])  # a file may have several rows
    total = pc.sum(files["size"]).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    for path in files.filter(pc.field("size").is_null())["path"].to_pylist():
        with suppress(OSError):
            total += os.stat(path).st_size
    return total


def _readable(manifest: Manifest, how: Training) -> tuple[Manifest, list[tuple[str, str]]]:
    """The rows but those found bad when the files were checked; and these files with their errors.

    Raises:
        UserError: too many are bad.
    """
    from unveil.data.audit import empty_classes, listed

    bad = manifest.bad_files()
    if not bad:
        return manifest, bad
    count = len(manifest.table["path"].unique())
    if len(bad) > how.max_bad * count:
        errors = "\n".join(f"  {error}" for _, error in bad[:20])
        raise UserError(
            f"{len(bad)} of {count} files cannot be read, more than --max-bad {how.max_bad:g} allows:\n{errors}\n"
            "Mend or remove them and run `unveil data check` again, or raise --max-bad."
        )
    say(how.quiet, f"{len(bad)} of {count} files cannot be read and are left out; the first: {bad[0][1]}")
    if empty := empty_classes(manifest):
        say(how.quiet, f"warning: no file of the classes {listed(empty)} can be read; they are left out")
    kept = manifest.readable()
    if not len(kept):
        raise UserError(f"none of the {count} files can be read; the first: {bad[0][1]}")
    return kept, bad


def _warn_of_copies(train: Manifest, held_out: Manifest | None, quiet: bool) -> None:
    from unveil.data.audit import copies_across, listed

    copies = copies_across(train, held_out) if held_out is not None else []
    if copies:
        say(
            quiet,
            f"warning: {len(copies)} held-out files have the content of files that are trained on, so that the validation "
            f"says more than it knows: {listed(copies)}",
        )


def _labelled(manifest: Manifest, quiet: bool) -> Manifest:
    """The rows that have a label.

    Raises:
        UserError: none, or one class only.
    """
    labelled = manifest.labelled()
    how = "Put the files into one folder per class, or beside them a labels.csv with the columns path,label."
    if not len(labelled):
        raise UserError(f"none of the {len(manifest)} files has a label. {how}")
    if len(labelled) < len(manifest):
        say(quiet, f"{len(manifest) - len(labelled)} of {len(manifest)} files have no label and are left out")
        manifest = labelled
    if len(manifest.classes) < 2:
        raise UserError(
            f"all {len(manifest)} files have the same label, {manifest.classes[0]!r}: there is nothing to tell apart. {how}"
        )
    return manifest


def _licence(start: str | None) -> str | None:
    """The licence that the start weights bring along: a run's own, handed on."""
    if start and (Path(start) / "run.json").is_file():
        info = json.loads((Path(start) / "run.json").read_text(encoding="utf-8"))
        return info.get("licence_of_start") or "the start run's own weights (trained from scratch)"
    return "unknown: a weights file, ask whoever made it" if start else None
