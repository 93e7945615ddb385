"""A run and files → numbers and answers: evaluate, predict, embed, search, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unveil.errors import UserError
from unveil.job import Paths, paths_of
from unveil.screen import say

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.evaluation import Report
    from unveil.run import Run
    from unveil.serve import Hit


def evaluate(
    run: str | Path | Run,
    *,
    data: Paths,
    by: Literal["accuracy", "knn", "linear", "attentive", "zero-shot", "retrieval"] = "accuracy",
    test: Paths | None = None,
    classes: str | Path | None = None,
    templates: str | Path | None = None,
    out: str | Path | None = None,
    use: str | None = None,
    missing: Literal["drop", "blank"] | None = None,
    views: str | None = None,
    short: int | None = None,
    crop: int | None = None,
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
        data: labelled files. With --by accuracy and zero-shot these are tested (the split named test, if there is one); with
            retrieval so are files with captions; the others learn from its training split and are tested on its test or
            validation split.
        by: accuracy (the run's own classifier), knn, linear or attentive (probes of the frozen encoder); of a run that knows
            texts also zero-shot (classes by their names) and retrieval (captions by images, and back).
        test: labelled files to test a probe on, instead of a split of --data.
        classes: for zero-shot, a text file with a name a line: the labels themselves (and perhaps more), or what they mean, in
            their alphabetical order; the labels by default.
        templates: for zero-shot, a text file with a prompt a line, {} for the name; some usual ones by default.
        out: folder for the JSON, CSV and PNG; RUN/evaluate by default.
        use: of a run of several streams (avmae, mavil) the encoder that is probed: video, audio or both; both by default.
        missing: what becomes of clips without a sound track: drop leaves them out, blank takes silence; as in training by default.
        views: clips × crops of each sample, e.g. 5x3; the recipe's by default.
        short: to which the short side is resized, in pixels; the recipe's by default.
        crop: side of what the network is shown, in pixels, e.g. 256 of a network trained at 224; the recipe's by default.
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

    from unveil.data import Dataset, Manifest, complete, evaluation_batches, filling
    from unveil.data.workers import ANSWERING, reporting_workers
    from unveil.evaluation import EVALUATORS, Subject
    from unveil.evaluation.accuracy import classifier_key
    from unveil.evaluation.halves import framed, halves
    from unveil.evaluation.halves import views as views_of
    from unveil.verbs.words import IN_WORDS, in_words

    run = _open(run, device, weights)
    recipe = run.recipe
    key, encoder, settings = run.tower(use)
    settings = replace(settings, evaluation=framed(settings.evaluation, short, crop))
    if missing:
        settings = filling(settings, missing)
    if views:
        settings = replace(settings, **views_of(views))
    if by not in (*EVALUATORS, *IN_WORDS):
        raise UserError(f"--by {by}: unknown. Use {', '.join((*EVALUATORS, *IN_WORDS))}.")
    if by == "accuracy":
        classifier_key(run.objective)
        run.trained_classes()
    elif not views:
        settings = replace(settings, clips=1, crops=1)
    suffixes = settings.signal.suffixes

    def scan(files: Paths) -> Manifest:
        found = Manifest.scan(paths_of(files), suffixes, warn=lambda text: say(quiet, f"warning: {text}"))
        return complete(found, settings.signal, lambda text: say(quiet, text))[0]

    if by in IN_WORDS:
        result, paths = in_words(by, run, settings, scan(data), classes, templates, seed, workers)
        return _told(result, Path(out) if out else run.path / "evaluate", paths, quiet)
    if classes or templates:
        raise UserError(
            "--classes and --templates are for --by zero-shot: the other evaluations take classes from the data."
        )
    known, asked = halves(
        by, scan(data), None if test is None else scan(test), val_fraction, seed, lambda text: say(quiet, text)
    )
    bad = asked.bad_files()
    known, asked = known.readable(), asked.readable()
    if not len(asked):
        raise UserError(f"none of the {len(bad)} files to test can be read; the first: {bad[0][1]}")
    names = run.classes if by == "accuracy" else sorted({*known.classes, *asked.classes})
    strange = sorted(set(asked.classes) - set(names))
    if strange and names:
        raise UserError(
            f"the data have classes that {run.path} was not trained on: {', '.join(strange[:8])}. It knows: {', '.join(names[:20])}."
        )
    loader = replace(recipe.loader, workers=workers)
    several = run.info["multi_label"] if by == "accuracy" else known.multi_label or asked.multi_label

    def batches(manifest: Manifest) -> Any:
        dataset = Dataset(manifest, settings, list(names), training=False, seed=seed, multi_label=several)
        return evaluation_batches(dataset, loader, min(loader.batch, 32))

    subject = Subject(run.objective, encoder, key, names, run.device)
    options: dict[str, Any] = {} if by == "accuracy" else {"layer": layer}
    if by in ("knn", "linear"):
        options["pool"] = pool
    if by in ("linear", "attentive"):
        options["seed"] = seed
    with reporting_workers(ANSWERING):
        result = EVALUATORS[by](subject, batches(known) if by != "accuracy" else None, batches(asked), **options)
    result.bad = bad + result.bad
    return _told(result, Path(out) if out else run.path / "evaluate", asked.column("path"), quiet)


def _told(result: Report, folder: Path, paths: list[str], quiet: bool) -> Report:
    """The report, written and shown."""
    result.save(folder, paths)
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
    missing: Literal["drop", "blank"] | None = None,
    batch: int = 8,
    workers: int = -1,
    precision: Literal["32", "bf16"] = "32",
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
        missing: what becomes of clips without a sound track: drop says so in their place, blank takes silence; as in training by
            default.
        batch: windows that go through the network at once, at most: a CPU takes few long ones.
        workers: processes that decode, where there are many files; -1 for one per core, less one.
        precision: in which the network computes: bf16 is faster on devices that multiply in it; the numbers differ from the third
            digit on.
        weights: last, or best on the held-out data of the training.
        device: auto, cpu, cuda or mps.
        quiet: print no table.

    Raises:
        UserError: no such file, or a run without classes. A file that cannot be decoded becomes a row with its error.
    """
    from unveil.serve import predict as rows_of
    from unveil.serve import print_rows, write_rows

    rows = print_rows(
        rows_of(
            _open(run, device, weights),
            [Path(path) for path in paths],
            top=top,
            hop=hop,
            batch=batch,
            missing=missing,
            workers=workers,
            precision=precision,
        ),
        quiet=quiet,
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
    pool: str | None = None,
    hop: float | None = None,
    use: str | None = None,
    batch: int = 8,
    workers: int = -1,
    precision: Literal["32", "bf16"] = "32",
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
        pool: mean, max, class, encoder, or shared (the space of images and texts, of sound and sight); shared where there is one,
            otherwise mean.
        hop: seconds from one window's start to the next; a window's length by default.
        use: of a run of several streams the encoder: video, audio or both; where two share a space (mavil) video by default,
            otherwise both.
        batch: windows that go through the network at once, at most: a CPU takes few long ones.
        workers: processes that decode, where there are many files; -1 for one per core, less one.
        precision: in which the network computes: bf16 is faster on devices that multiply in it; the numbers differ from the third
            digit on.
        weights: last, or best on the held-out data of the training.
        device: auto, cpu, cuda or mps.
        overwrite: replace an index that is there.
        quiet: print nothing.
    """
    from unveil.serve import embed as write_index

    return write_index(
        _open(run, device, weights), paths_of(data), Path(out), layer=layer, pool=pool, hop=hop, batch=batch,
        overwrite=overwrite, quiet=quiet, use=use, workers=workers, precision=precision,
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
    """What in an index is most like a file, or fits a text best: path, time and cosine similarity. Exact.

    Args:
        index: folder that `unveil embed` wrote.
        query: a media file, also a sound for videos where both share a space (mavil); or, of a run that knows texts (clip, flip), a
            text in quotes.
        top: number of results.
        html: also write a page with pictures of the results.
        device: auto, cpu, cuda or mps.
        quiet: print no table.
    """
    from unveil.serve import print_hits, search_page
    from unveil.serve import search as find
    from unveil.serve.index import read_index

    hits = find(Path(index), query, top=top, device=device)
    if html:
        search_page(hits, query, Path(html), read_index(index).get("signal", ""))
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
