"""The verbs: what `unveil …` does, as typed functions, and the Python API.

Positional parameters are positional on the command line, keyword-only ones are flags; the docstrings are the help. `data`
is always files: a folder, a media file or a labels .csv. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unveil.errors import UserError
from unveil.flags import build
from unveil.job import Paths, carry_out, finetuning_of, learns_from_labels, paths_of, say, supervised_of

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.data.checked import Checked
    from unveil.data.prepare import Prepared
    from unveil.evaluation import Report
    from unveil.recipe import Recipe
    from unveil.run import Run
    from unveil.serve import Hit

__all__ = ["build", "embed", "evaluate", "finetune", "predict", "pretrain", "report", "search", "train"]


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
    return carry_out("train", supervised_of(recipe), data, out, start, flags)


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
    weights: str = "last",
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
        weights: last, or best on the held-out data of the training.
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
    from unveil.evaluation.halves import halves
    from unveil.evaluation.halves import views as views_of

    run = _open(run, device, weights)
    recipe = run.recipe
    settings = replace(recipe.data, **views_of(views)) if views else recipe.data
    if by not in EVALUATORS:
        raise UserError(f"--by {by}: unknown. Use {', '.join(EVALUATORS)}.")
    if by == "accuracy":
        classifier_key(run.objective)
    elif not views:
        settings = replace(settings, clips=1, crops=1)
    suffixes = settings.signal.suffixes

    def scan(files: Paths) -> Manifest:
        return Manifest.scan(paths_of(files), suffixes, warn=lambda text: say(quiet, f"warning: {text}"))

    known, asked = halves(
        by, scan(data), None if test is None else scan(test), val_fraction, seed, lambda text: say(quiet, text)
    )
    bad = asked.bad_files()
    known, asked = known.readable(), asked.readable()
    if not len(asked):
        raise UserError(f"none of the {len(bad)} files to test can be read; the first: {bad[0][1]}")
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
    result.bad = bad + result.bad
    folder = Path(out) if out else run.path / "evaluate"
    result.save(folder, asked.column("path"))
    if not quiet:
        from rich.console import Console

        Console().print(result.table())
        say(quiet, f"written to {folder}")
    return result


def _open(run: str | Path | Run, device: str, weights: str = "last") -> Run:
    from unveil.run import Run, load

    return run if isinstance(run, Run) else load(run, device, weights)


def predict(
    run: str | Path | Run,
    *paths: str | Path,
    top: int = 5,
    hop: float | None = None,
    out: str | Path | None = None,
    batch: int = 8,
    weights: str = "last",
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
        weights: last, or best on the held-out data of the training.
        device: auto, cpu, cuda or mps.
        quiet: print no table.

    Raises:
        UserError: no such file, or a run without classes. A file that cannot be decoded becomes a row with its error.
    """
    from unveil.serve import predict as rows_of
    from unveil.serve import print_rows, write_rows

    rows = print_rows(
        rows_of(_open(run, device, weights), [Path(path) for path in paths], top=top, hop=hop, batch=batch), quiet=quiet
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
    weights: str = "last",
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
        weights: last, or best on the held-out data of the training.
        device: auto, cpu, cuda or mps.
        overwrite: replace an index that is there.
        quiet: print nothing.
    """
    from unveil.serve import embed as write_index

    return write_index(
        _open(run, device, weights), paths_of(data), Path(out), layer=layer, pool=pool, hop=hop, batch=batch,
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
    say(quiet, f"written to {path}")
    return path


def check(
    *folders: str | Path,
    out: str | Path | None = None,
    workers: int = -1,
    timeout: float | None = None,
    recheck: bool = False,
    quiet: bool = False,
) -> Checked:
    """Decode every file once and write FOLDER/manifest.parquet, which all verbs then use.

    Args:
        folders: folders of media files.
        out: one manifest of all folders, above them, instead of one in each.
        workers: processes that decode; -1 for one per core.
        timeout: seconds a file may take; a minute, and a second more for each 100 kB, by default.
        recheck: decode all files again, also those that were good and have not changed.
        quiet: print nothing.

    Returns:
        What was found: `.bad`, `.duplicates`, `.manifest`. (The command's status is 1 when some files are bad.)

    Raises:
        UserError: no such folder, no media in it, or it cannot be written to.
    """
    from unveil.data.check import check as check_files

    checked = check_files(folders, out, workers=workers, timeout=timeout, recheck=recheck, quiet=quiet)
    _print(checked, quiet)
    return checked


def prepare(
    folder: str | Path,
    *,
    out: str | Path,
    short_side: int = 320,
    gop: int = 16,
    crf: int = 18,
    fps: float | None = None,
    workers: int = -1,
    timeout: float | None = None,
    quiet: bool = False,
) -> Prepared:
    """Encode a folder of files anew, into another, for fast random access.

    Videos become H.264 in MP4 with their own times and their sound, images JPEG or PNG. The same command goes on where it
    was stopped, and does again only what changed. Sources are never written to.

    Args:
        folder: folder of media files.
        out: another folder, new or made by this command.
        short_side: pixels of the shorter side, at most; smaller files are not enlarged.
        gop: frames from one key frame to the next, at most.
        crf: quality of H.264, from 0 (lossless) to 51; 18 looks the same.
        fps: frames per second, at most; all frames by default.
        workers: processes that encode; -1 for one per core.
        timeout: seconds a file may take; two minutes, and a second more for each 10 kB, by default.
        quiet: print nothing.

    Returns:
        What was done: `.bad`, `.manifest`. (The command's status is 1 when some files are bad.)

    Raises:
        UserError: no such folder, `out` holds something else, the disk is full.
    """
    from unveil.data.encode import Encoding
    from unveil.data.prepare import prepare as prepare_files

    for name, value, low, high in (("short-side", short_side, 2, 16384), ("gop", gop, 1, 1000), ("crf", crf, 0, 51)):
        if not low <= value <= high:
            raise UserError(f"--{name} {value}: between {low} and {high}.")
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"--fps {fps}: between 0 and 1000.")
    prepared = prepare_files(
        folder, out, Encoding(short_side, gop, crf, fps), workers=workers, timeout=timeout, quiet=quiet,
        warn=lambda text: say(quiet, f"warning: {text}"),
    )  # fmt: skip
    _print(prepared, quiet)
    return prepared


def _print(found: Checked | Prepared, quiet: bool) -> None:
    if not quiet:
        from rich.console import Console

        console = Console()
        for style, text in found.sentences():
            console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


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
