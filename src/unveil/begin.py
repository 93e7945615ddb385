"""A run folder is begun: the data are looked at, what they decide is settled and written down; or found changed since."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.errors import UserError
from unveil.flags import learns_from_labels
from unveil.screen import say

if TYPE_CHECKING:
    from unveil.data import Manifest
    from unveil.job import Training
    from unveil.recipe import Recipe
    from unveil.run import Run

BEGUN = {"manifest.parquet", "validation.parquet", "bad.jsonl", "tokenizer.json"}
"""What a kill can leave in a run folder that has no run.json yet: that is written last."""


def begin(
    verb: str,
    function: Callable[..., Recipe],
    asked: dict[str, Any],
    given: Collection[str],
    data: list[Path],
    out: Path,
    how: Training,
) -> Run:
    """Look at the data, settle what they decide, and write the run folder.

    `given` are the flags that a person chose; the others of `asked` are a preset's.

    Raises:
        UserError: the data are not what the verb needs; nothing is written then.
    """
    import torch

    from unveil.data import complete, mixture, signal_of
    from unveil.data.balance import balanced
    from unveil.fabric import import_fabric
    from unveil.flags import assemble, recipe_flags
    from unveil.run import load, new_info
    from unveil.storage import write_json, write_lines

    flags = settled(function, asked["flags"], given)
    own = recipe_flags(function)
    with torch.device("meta"):
        sketch = assemble(function, flags)
    asks = "frames" in own and own["frames"].default is None and "frames" not in flags
    if asks and sketch.data.signal.key == "image" and signal_of(data) == "video":
        flags["frames"] = 16  # the field's usual clip, where neither a flag nor the size names another
        with torch.device("meta"):
            sketch = assemble(function, flags)
    supervised = learns_from_labels(function)
    listed = mixture(
        data, sketch.data.signal.suffixes, asked.get("data_weight", ()), labelled=supervised,
        warn=lambda text: say(how.quiet, f"warning: {text}"),
    )  # fmt: skip
    # The loop's library takes seconds to import: meanwhile the data are looked at, and a long list costs no time. Not before
    # they are found: a person who misspelt a folder would wait for it. It has ended, too, when this fails: nobody may meet
    # what `import_fabric` puts up for the time being.
    # One list may be long. What is measured of it whole, and writing, leave the interpreter to what is done meanwhile.
    with ThreadPoolExecutor(1) as importer, ThreadPoolExecutor(1) as beside:
        imported = importer.submit(import_fabric)
        whole = beside.submit(_measured, listed)
        manifest, bad = _readable(listed, how)
        manifest, incomplete = complete(manifest, sketch.data.signal, lambda text: say(how.quiet, text))
        if supervised:
            manifest = _labelled(manifest, how.quiet)
        train_rows, held_out = _divided(manifest, asked["val_fraction"], asked["seed"])
        _warn_of_copies(train_rows, held_out, how.quiet)
        if asked.get("balance"):
            train_rows = balanced(train_rows)
        if supervised:
            _settle_classes(manifest, flags, "multi_label" in own)
        about_text = {}
        if sketch.data.text is not None:
            words = sketch.data.text.settle(train_rows, out, asked["start"], flags.get("vocabulary"))
            flags["vocabulary"] = words["vocabulary"]
            flags.pop("tokenizer", None)  # from here on it is the one in the folder
            about_text = {"tokenizer": words}
        tables = {"manifest.parquet": train_rows, "validation.parquet": held_out}
        written = [
            beside.submit(_write, rows, out / name) for name, rows in tables.items() if rows is not None and len(rows)
        ]
        if bad:
            write_lines(out / "bad.jsonl", [{"path": path, "error": error} for path, error in bad])
        info = new_info(
            verb,
            asked["recipe"],
            flags,
            asked=asked,
            classes=manifest.classes,
            multi_label=manifest.multi_label,
            precision=sketch.precision,
            preprocessing=sketch.data.described(),
            files={
                "train": len(train_rows),
                "validation": len(held_out) if held_out is not None else 0,
                "bad": len(bad),
                **({"incomplete": incomplete} if incomplete else {}),
            },
            licence_of_start=_licence(asked["start"]),
            **about_text,
        )
        info |= whole.result()
        for table in written:
            table.result()
        imported.result()  # before any process is forked
    write_json(out / "run.json", info)
    return load(out, how.device)


def settled(function: Callable[..., Recipe], flags: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The flags with those that other runs decide: what the recipe's module makes of them (`SETTLED`), where it does.

    A preset gives way to another run; flags that were `given` must agree with it. They are written into the run folder, which then
    needs the other runs no more to be opened.

    Raises:
        UserError: another run that the recipe needs is not named, or is none that it can use.
    """
    from unveil import recipes

    settle = getattr(recipes.module_of(function), "SETTLED", {}).get(function.__name__)
    if settle is None:
        return dict(flags)
    return flags | settle({name: value for name, value in flags.items() if name in given})


def _divided(manifest: Manifest, fraction: float | None, seed: int) -> tuple[Manifest, Manifest | None]:
    """What is trained on and what is held out: as the rows say, otherwise drawn where there are labels."""
    from unveil.data import split

    if fraction == 0:
        return manifest.select("train", ""), None
    if manifest.classes or manifest.captioned or manifest.splits != [""]:
        return split(manifest, 0.1 if fraction is None else fraction, seed=seed)
    return manifest, None


def _settle_classes(manifest: Manifest, flags: dict[str, Any], may_have_several: bool) -> None:
    """Fill in the flags that the labels decide.

    Raises:
        UserError: --num-classes is given, and is another number.
    """
    classes = manifest.classes
    flags.setdefault("num_classes", len(classes))
    if may_have_several:
        flags.setdefault("multi_label", manifest.multi_label)
    if flags["num_classes"] != len(classes):
        raise UserError(
            f"--num-classes {flags['num_classes']}: the data have {len(classes)} classes. Leave the flag out; "
            "the head is made for the classes of the data, whatever the start weights were trained on."
        )


def _write(rows: Manifest, path: Path) -> None:
    from unveil.storage import replacing

    with replacing(path) as temporary:
        rows.save(temporary)


def _measured(listed: Manifest) -> dict[str, Any]:
    """By which a run that is resumed knows its data again."""
    return {"data_hash": listed.hash, "data_bytes": _bytes(listed), "data_files": listed.files}


def say_if_changed(run: Run, function: Callable[..., Recipe], data: list[Path], how: Training) -> None:
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

    from unveil.data import archives

    columns = [name for name in ("path", "size")[: 1 + checked] if name in manifest.table.column_names]
    files = manifest.table.select(columns)
    files = files if "size" in columns else files.append_column("size", pa.nulls(len(files), pa.int64()))
    if manifest.files < len(files):  # a file may have several rows
        files = files.group_by(["path", "size"]).aggregate([])
    total = pc.sum(files["size"]).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    for path in files.filter(pc.field("size").is_null())["path"].to_pylist():
        with suppress(OSError, UserError):
            total += archives.status(path)[0]
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
    count = manifest.files
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
