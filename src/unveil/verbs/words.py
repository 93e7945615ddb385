"""Evaluations of a run that knows texts: the data are looked at, the network is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.evaluation import Report
    from unveil.recipe import Data
    from unveil.run import Run

IN_WORDS = ("zero-shot", "retrieval")


def in_words(
    by: str,
    run: Run,
    settings: Data,
    manifest: Manifest,
    classes: str | Path | None,
    templates: str | Path | None,
    seed: int,
    workers: int,
) -> tuple[Report, list[str]]:
    """The report, and the file of each row that it numbers.

    Args:
        by: one of `IN_WORDS`.
        run: opened.
        settings: how files become samples.
        manifest: all files; of those with a split named test only these are asked.
        classes, templates, seed, workers: as of `unveil evaluate`.

    Raises:
        UserError: the run knows no texts, or no file has what is asked for.
    """
    from unveil.data import Dataset, evaluation_batches
    from unveil.data.captions import by_file
    from unveil.evaluation import language

    objective, encode = language.towers_of(run.objective, settings.text, f"--by {by}")
    bad = manifest.bad_files()
    manifest = manifest.readable()
    tested = manifest.select("test")
    asked = tested if len(tested) else manifest
    loader = replace(run.recipe.loader, workers=workers)
    key = settings.signal.key
    if by == "zero-shot":
        from unveil.evaluation.halves import with_labels

        asked = with_labels(asked)
        if asked.multi_label:
            raise UserError("--by zero-shot: some files have several labels; give data with one each.")
        labels, names = language.names_for(asked.classes, classes)
        batches = evaluation_batches(
            Dataset(asked, settings, labels, training=False, seed=seed), loader, min(loader.batch, 32)
        )
        prompts = language.read_templates(templates)
        report = language.zero_shot(objective, encode, batches, key, labels, names, prompts, run.device)
    else:
        if classes or templates:
            raise UserError("--classes and --templates are for --by zero-shot; a retrieval asks with captions.")
        rows, captions, mute = by_file(asked)
        if not rows:
            raise UserError(
                f"none of the {len(asked)} files has a caption: put beside them a captions.csv with the columns image,caption."
            )
        bad += mute
        asked = asked.select(rows)
        batches = evaluation_batches(
            Dataset(asked, settings, None, training=False, seed=seed), loader, min(loader.batch, 32)
        )
        report = language.retrieval(objective, encode, batches, key, captions, run.device)
    report.bad = [*bad, *report.bad]
    return report, asked.column("path")
