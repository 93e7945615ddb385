"""The verbs: what `unveil …` does, as typed functions, and the Python API.

Positional parameters are positional on the command line, keyword-only ones are flags; the docstrings are the help. `data`
is always files: a folder, a media file or a labels .csv. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unveil.errors import UserError
from unveil.flags import build

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.evaluation import Report
    from unveil.recipe import Recipe
    from unveil.run import Run
    from unveil.serve import Hit

__all__ = ["build", "embed", "evaluate", "finetune", "predict", "pretrain", "report", "search", "train"]

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
        devices: processes, one device each.
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
    val_fraction: float | None = None
    max_bad: float = 0.1
    logger: Sequence[str] = ()
    overwrite: bool = False
    quiet: bool = False


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
    if _supervised(function):
        raise UserError(f"{function.__name__} learns from labels. Use: unveil train {function.__name__} --data …")
    return _train("pretrain", recipe, data, out, start, flags)


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
    return _train("finetune", name, data, out, run, flags)


def train(
    recipe: str | Callable[..., Recipe], *, data: Paths, out: str | Path, start: str | Path | None = None, **flags: Any
) -> Run:
    """Learn from labels, from scratch (or from --start).

    Args:
        recipe: name of a system. For one that pre-trains, its fine-tuning network is trained from random weights.
        data: labelled files: a folder per class, or a folder with labels.csv; may be given several times.
        out: run folder to write. If it holds the same run, that run is resumed.
        start: run folder or weights file to start from.
        flags: the fields of `Training`, the recipe's parameters and the fields of its Recipe ("optimizer.lr").

    Returns:
        The finished run.

    Raises:
        UserError: a folder, a flag or a file is wrong; the text says which.
    """
    return _train("train", supervised_of(recipe), data, out, start, flags)


def _supervised(function: Callable[..., Any]) -> bool:
    """A recipe that learns from labels has a number of classes; nothing else tells the two kinds apart."""
    import inspect

    return "num_classes" in inspect.signature(function).parameters


def supervised_of(recipe: str | Callable[..., Recipe]) -> str | Callable[..., Recipe]:
    """The recipe itself when it learns from labels, otherwise its module's `finetune`.

    Raises:
        UserError: the module has none.
    """
    from unveil import recipes

    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    if _supervised(function):
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
    import inspect

    from unveil import recipes
    from unveil.flags import name_of
    from unveil.run import load

    opened = load(run)
    function = recipes.find(opened.info["recipe"])
    if not _supervised(function):
        function = supervised_of(function)
        assert callable(function)
    own = inspect.signature(function).parameters
    decided = {"num_classes", "multi_label"}
    shared = {k: v for k, v in opened.info["flags"].items() if k in own and k not in decided}
    name = name_of(function) if function is not recipes.find(opened.info["recipe"]) else opened.info["recipe"]
    return name, {**shared, **flags}


def _train(
    verb: str,
    recipe: str | Callable[..., Recipe],
    data: Paths,
    out: str | Path,
    start: str | Path | None,
    flags: dict[str, Any],
) -> Run:
    from unveil import recipes
    from unveil.flags import expand, name_of
    from unveil.run import choose_device, difference, load

    how = Training(**{f.name: flags.pop(f.name) for f in fields(Training) if f.name in flags})
    function = recipes.find(recipe) if isinstance(recipe, str) else recipe
    choose_device(how.device)
    flags = expand(function, how.preset, {k: v for k, v in flags.items() if v is not None})
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
    if how.overwrite and (out / "run.json").is_file():
        shutil.rmtree(out)
    if (out / "run.json").is_file():
        run = load(out, how.device)
        changed = difference(run.info["asked"], asked)
        if changed or run.info["verb"] != verb:
            listed = "\n".join(f"  {line}" for line in changed) or f"  it was made by: unveil {run.info['verb']}"
            raise UserError(
                f"{out} holds another run:\n{listed}\nUse the same flags to resume it, another --out, or --overwrite."
            )
        if run.info["status"] == "complete":
            _say(how.quiet, f"{out} is complete ({run.info['steps']} steps); nothing to do. --overwrite begins again.")
            return run
    else:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out} exists and is no run folder. Name a new folder, or empty this one.")
        run = _begin(verb, function, asked, paths_of(data), out, how)
    from unveil.training import Plan, fit

    fit(
        Plan(
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
            precision=run.info["precision"],
            quiet=how.quiet,
        )
    )
    return load(out, how.device)


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        from rich.console import Console

        Console(stderr=True).print(text, highlight=False, markup=False)


def _begin(
    verb: str, function: Callable[..., Recipe], asked: dict[str, Any], data: list[Path], out: Path, how: Training
) -> Run:
    """Look at the data, settle what they decide, and write the run folder."""
    import torch

    from unveil.data import Manifest, signal_of, split
    from unveil.flags import assemble, recipe_flags
    from unveil.run import load, new_info, write_json

    flags = dict(asked["flags"])
    own = recipe_flags(function)
    if "frames" in own and own["frames"].default is None and "frames" not in flags and signal_of(data) == "video":
        flags["frames"] = 16  # the field's usual clip; a recipe whose `frames` is None without it reads images
    with torch.device("meta"):
        sketch = assemble(function, flags)
    manifest = Manifest.scan(data, sketch.data.signal.suffixes)
    supervised = _supervised(function)
    fraction = asked["val_fraction"]
    if supervised:
        manifest = _labelled(manifest, how.quiet)
    classes = manifest.classes
    train_rows, held_out = manifest, None
    named = [row.split for row in manifest]
    if fraction == 0:
        train_rows = manifest.select([name not in ("val", "test") for name in named])
    elif classes or any(named):
        train_rows, held_out = split(manifest, 0.1 if fraction is None else fraction, seed=asked["seed"])
    if supervised:
        flags.setdefault("num_classes", len(classes))
        if "multi_label" in own:
            flags.setdefault("multi_label", manifest.multi_label)
        if flags["num_classes"] != len(classes):
            raise UserError(
                f"--num-classes {flags['num_classes']}: the data have {len(classes)} classes. Leave the flag out; "
                "the head is made for the classes of the data, whatever the start weights were trained on."
            )
    out.mkdir(parents=True, exist_ok=True)
    train_rows.save(out / "manifest.parquet")
    if held_out is not None and len(held_out):
        held_out.save(out / "validation.parquet")
    info = new_info(
        verb,
        asked["recipe"],
        flags,
        asked=asked,
        classes=classes,
        multi_label=manifest.multi_label,
        precision=sketch.precision,
        preprocessing={
            "signal": repr(sketch.data.signal),
            "training": [repr(step) for step in sketch.data.transform],
            "evaluation": [repr(step) for step in sketch.data.evaluation],
            "mean": sketch.data.mean,
            "std": sketch.data.std,
        },
        files={"train": len(train_rows), "validation": len(held_out) if held_out is not None else 0},
        data_hash=manifest.hash,
        licence_of_start=_licence(asked["start"]),
    )
    write_json(out / "run.json", info)
    return load(out, how.device)


def _labelled(manifest: Manifest, quiet: bool) -> Manifest:
    """The rows that have a label.

    Raises:
        UserError: none, or one class only.
    """
    keep = [i for i, row in enumerate(manifest) if row.label]
    how = "Put the files into one folder per class, or beside them a labels.csv with the columns path,label."
    if not keep:
        raise UserError(f"none of the {len(manifest)} files has a label. {how}")
    if len(keep) < len(manifest):
        _say(quiet, f"{len(manifest) - len(keep)} of {len(manifest)} files have no label and are left out")
        manifest = manifest.select(keep)
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


def evaluate(
    run: str | Path | Run,
    *,
    data: Paths,
    by: Literal["accuracy", "knn", "linear", "attentive"] = "accuracy",
    test: Paths | None = None,
    out: str | Path | None = None,
    views: str | None = None,
    layer: int | None = None,
    pool: str = "mean",
    val_fraction: float = 0.2,
    seed: int = 0,
    device: str = "auto",
    workers: int = -1,
    quiet: bool = False,
) -> Report:
    """How often a run is right: top-1, top-5, per class, confusion matrix.

    Args:
        run: run folder.
        data: labelled files. With --by accuracy these are tested (the split named test, if there is one); the other
            evaluations learn from its training split and are tested on its test or validation split.
        by: accuracy (the run's own classifier), knn, linear or attentive (probes of the frozen encoder).
        test: labelled files to test a probe on, instead of a split of --data.
        out: folder for the JSON, CSV and PNG; RUN/evaluate by default.
        views: clips × crops of each sample, e.g. 5x3; the recipe's by default.
        layer: features after this block (1 … depth, negative from the end); the encoder's output by default.
        pool: how a probe makes one vector of the tokens: mean, max, class or encoder.
        val_fraction: share tested when the data name no split (probes).
        seed: of splits and probes.
        device: auto, cpu, cuda or mps.
        workers: processes that decode; -1 for one per core, less one.
        quiet: print nothing.

    Returns:
        The report: `.metrics`, `.per_class`, `.confusion`.

    Raises:
        UserError: no labels, other classes than the run's, a probe without anything to learn from.
    """
    from dataclasses import replace

    from unveil.data import Dataset, Manifest, evaluation_batches
    from unveil.evaluation import EVALUATORS, Subject
    from unveil.evaluation.accuracy import classifier_key

    run = _open(run, device)
    recipe = run.recipe
    settings = replace(recipe.data, **_views(views)) if views else recipe.data
    if by not in EVALUATORS:
        raise UserError(f"--by {by}: unknown. Use {', '.join(EVALUATORS)}.")
    if by == "accuracy":
        classifier_key(run.objective)
    elif not views:
        settings = replace(settings, clips=1, crops=1)
    suffixes = settings.signal.suffixes
    known, asked = _halves(by, Manifest.scan(paths_of(data), suffixes), test, suffixes, val_fraction, seed, quiet)
    classes = run.classes if by == "accuracy" else sorted({*known.classes, *asked.classes})
    strange = sorted(set(asked.classes) - set(classes))
    if strange and classes:
        raise UserError(
            f"the data have classes that {run.path} was not trained on: {', '.join(strange[:8])}. It knows: {', '.join(classes[:20])}."
        )
    loader = replace(recipe.loader, workers=workers)
    several = run.info["multi_label"] if by == "accuracy" else known.multi_label or asked.multi_label

    def batches(manifest: Manifest) -> Any:
        dataset = Dataset(manifest, settings, list(classes), training=False, seed=seed, multi_label=several)
        return evaluation_batches(dataset, loader, min(loader.batch, 32))

    subject = Subject(run.objective, run.encoder, settings.signal.key, classes, run.device)
    options: dict[str, Any] = {} if by == "accuracy" else {"layer": layer}
    if by in ("knn", "linear"):
        options["pool"] = pool
    if by in ("linear", "attentive"):
        options["seed"] = seed
    result = EVALUATORS[by](subject, batches(known) if by != "accuracy" else None, batches(asked), **options)
    folder = Path(out) if out else run.path / "evaluate"
    result.save(folder, [row.path for row in asked])
    if not quiet:
        from rich.console import Console

        Console().print(result.table())
        _say(quiet, f"written to {folder}")
    return result


def _halves(
    by: str, manifest: Manifest, test: Paths | None, suffixes: Any, fraction: float, seed: int, quiet: bool
) -> tuple[Manifest, Manifest]:
    """What a probe learns from, and what is tested."""
    from unveil.data import Manifest, split

    manifest = _with_labels(manifest)
    if test is not None:
        return manifest, _with_labels(Manifest.scan(paths_of(test), suffixes))
    splits = [row.split for row in manifest]
    if by == "accuracy":
        if "test" in splits:
            chosen = [i for i, name in enumerate(splits) if name == "test"]
            _say(quiet, f"testing on the {len(chosen)} files of split test")
            return manifest, manifest.select(chosen)
        return manifest, manifest
    if "test" in splits:
        return (
            manifest.select([i for i, name in enumerate(splits) if name != "test"]),
            manifest.select([i for i, name in enumerate(splits) if name == "test"]),
        )
    return split(manifest, fraction, seed=seed)


def _with_labels(manifest: Manifest) -> Manifest:
    keep = [i for i, row in enumerate(manifest) if row.label]
    if not keep:
        raise UserError(
            f"none of the {len(manifest)} files has a label to compare with. Put them into one folder per class, "
            "or beside them a labels.csv with the columns path,label."
        )
    return manifest.select(keep)


def _views(text: str) -> dict[str, int]:
    try:
        clips, crops = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--views {text}: give clips x crops, e.g. 5x3.") from None
    if clips < 1 or crops not in (1, 3):
        raise UserError(f"--views {text}: at least one clip, and 1 or 3 crops.")
    return {"clips": clips, "crops": crops}


def _open(run: str | Path | Run, device: str) -> Run:
    from unveil.run import Run, load

    return run if isinstance(run, Run) else load(run, device)


def predict(
    run: str | Path | Run,
    *paths: str | Path,
    top: int = 5,
    hop: float | None = None,
    out: str | Path | None = None,
    batch: int = 8,
    device: str = "auto",
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """The likeliest classes of files; one row per window of a long video.

    Args:
        run: run folder of train or finetune.
        paths: files and folders.
        top: classes per row.
        hop: seconds from one window's start to the next; a window's length by default.
        out: .csv, .json or .jsonl file to write.
        batch: windows that go through the network at once.
        device: auto, cpu, cuda or mps.
        quiet: print no table.

    Raises:
        UserError: no such file, or a run without classes. A file that cannot be decoded becomes a row with its error.
    """
    from unveil.serve import predict as rows_of
    from unveil.serve import print_rows, write_rows

    rows = print_rows(
        rows_of(_open(run, device), [Path(path) for path in paths], top=top, hop=hop, batch=batch), quiet=quiet
    )
    if out:
        write_rows(rows, Path(out))
    return rows


def embed(
    run: str | Path | Run,
    *,
    data: Paths,
    out: str | Path,
    layer: int | None = None,
    pool: str = "mean",
    hop: float | None = None,
    batch: int = 8,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Embeddings of every window of every file, as parquet; what `unveil search` looks in.

    Args:
        run: run folder; of any kind.
        data: folder of files, or a file; may be given several times.
        out: folder for the index.
        layer: features after this block (1 … depth, negative from the end); the encoder's output by default.
        pool: mean, max, class or encoder.
        hop: seconds from one window's start to the next; a window's length by default.
        batch: windows that go through the network at once.
        device: auto, cpu, cuda or mps.
        overwrite: replace an index that is there.
        quiet: print nothing.
    """
    from unveil.serve import embed as write_index

    return write_index(
        _open(run, device), paths_of(data), Path(out), layer=layer, pool=pool, hop=hop, batch=batch,
        overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


def search(
    index: str | Path,
    query: str | Path,
    *,
    top: int = 10,
    html: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> list[Hit]:
    """What in an index is most like a file: path, time and cosine similarity. Exact.

    Args:
        index: folder that `unveil embed` wrote.
        query: a media file.
        top: number of results.
        html: also write a page with pictures of the results.
        device: auto, cpu, cuda or mps.
        quiet: print no table.
    """
    from unveil.serve import print_hits, search_page
    from unveil.serve import search as find

    hits = find(Path(index), Path(query), top=top, device=device)
    if html:
        search_page(hits, Path(query), Path(html))
    return print_hits(hits, quiet=quiet)


def report(run: str | Path | Run, *, out: str | Path | None = None, device: str = "auto", quiet: bool = False) -> Path:
    """One HTML file about a run: settings, curves, reconstructions, neighbours, bad files.

    Args:
        run: run folder.
        out: file to write; RUN/report.html by default.
        device: auto, cpu, cuda or mps.
        quiet: print nothing.
    """
    from unveil.serve import report as write

    path = write(_open(run, device), Path(out) if out else None)
    _say(quiet, f"written to {path}")
    return path


def builtin(
    name: str,
    *,
    out: str | Path,
    unlabelled: int = 2000,
    labelled: int = 160,
    test: int = 400,
    frames: int = 16,
    size: int = 32,
    seed: int = 0,
) -> None:
    """Write small data that need no download.

    Args:
        name: moving-digits: handwritten digits in motion over textured backgrounds, as H.264 files.
        out: folder for unlabelled/, labelled/CLASS/ and test/CLASS/.
        unlabelled: clips without labels.
        labelled: clips with labels.
        test: clips to test on; their digits are never seen elsewhere.
        frames: frames of each clip.
        size: height and width in pixels.
        seed: of everything random.

    Raises:
        UserError: no such data, or the folder holds something else.
    """
    if name != "moving-digits":
        raise UserError(f"unveil data builtin {name}: unknown. There is: moving-digits")
    from unveil.data.builtin import moving_digits

    moving_digits(Path(out), unlabelled=unlabelled, labelled=labelled, test=test, frames=frames, size=size, seed=seed)
