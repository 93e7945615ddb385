"""`manifest.parquet`, which `unveil data check` leaves beside the files: written, read, and found out of date.

Paths in it are relative to its own folder, with forward slashes, so that the two can be moved together; a path that leaves
the folder is refused. Beside the rows it remembers what they were made from: the digest of labels.csv, or of each folder
its time of modification and the names in it. So an unchanged tree costs one `stat` for each folder, however many files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from unveil.data import order
from unveil.data.listing import LISTS, as_text, list_files, list_in, suffix, walk
from unveil.data.row import SCHEMA, SPLITS
from unveil.errors import UserError
from unveil.storage import replacing

pc: Any = pyarrow.compute  # its functions are made when it is imported, and unknown to type checkers

NAME = "manifest.parquet"
FORMAT = 1
_KEY = b"unveil"
_TICK = 0.02  # seconds; kernels note times of files in steps of up to 10 ms

MEASURED = pa.schema(
    [
        ("hash", pa.string()),  # BLAKE2b of the content, 32 hexadecimal digits
        ("duration", pa.float64()),  # seconds
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frames", pa.int64()),
        ("has_audio", pa.bool_()),
        ("points", pa.int64()),
        ("rate", pa.int32()),  # samples per second
        ("channels", pa.int32()),
        ("peak", pa.float64()),  # of the samples, 1 at full scale
        ("size", pa.int64()),  # bytes
        ("mtime_ns", pa.int64()),
        ("error", pa.string()),  # null: decoded to its end
    ]
)
"""The columns that are measured, null where they have no meaning (an image) or could not be found out (a bad file)."""


def write(table: pa.Table, file: str, sources: list[dict[str, Any]]) -> None:
    """Write a manifest, in one step.

    Args:
        table: with absolute paths, all below the folder of `file`.
        file: whose folder the paths become relative to.
        sources: see `survey`.
    """
    folder = os.path.dirname(os.path.abspath(file))
    cut = len(folder) + (not folder.endswith(os.sep))
    relative = pc.utf8_slice_codeunits(table["path"], cut)
    if os.sep != "/":
        relative = pc.replace_substring(relative, os.sep, "/")
    table = table.set_column(table.column_names.index("path"), SCHEMA.field("path"), relative)
    table = table.drop_columns([name for name in (order.FIELD.name,) if name in table.column_names])
    table = table.append_column(order.FIELD, pa.array(order.digests(relative.to_pylist(), order.KEPT_SEED)))
    about = json.dumps({"format": FORMAT, "sources": sources})
    with replacing(Path(file)) as temporary:
        pq.write_table(table.replace_schema_metadata({_KEY: about.encode()}), os.fspath(temporary))


def stamp(file: str, sources: list[dict[str, Any]]) -> None:
    """Tell a manifest the time of its folder, which `write` modified by putting it there.

    It is the last thing to do in that folder. Without it, reading the manifest would compare the names in the folder.
    """
    folder = os.path.dirname(os.path.abspath(file))
    time.sleep(_TICK)  # the names below are those of a time that no later change can have as well
    for source in sources:
        recorded = source.get("folders", {}).get(".")
        if source["folder"] == "." and recorded and _names(folder, source["suffixes"]) == recorded[1]:
            os.utime(file, ns=(os.stat(file).st_atime_ns, os.stat(folder).st_mtime_ns))


def read(file: str) -> tuple[pa.Table, list[str]]:
    """Read a manifest, with absolute paths; and what changed since it was written, a phrase for each folder.

    A file replaced by another of the same name is not noticed: that would cost a look at every file.

    Raises:
        UserError: not a manifest, or a row that names a file outside its folder.
    """
    folder = os.path.dirname(os.path.abspath(file))
    try:
        table = pq.read_table(file)
        about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(f"{file}: not a manifest ({error}). Make it anew: unveil data check {folder}") from error
    table = _settled(table, file)
    _refuse_outside(table, file)
    relative = table["path"]
    if os.sep != "/":
        relative = pc.replace_substring(relative, "/", os.sep)
    prefix = folder if folder.endswith(os.sep) else folder + os.sep
    absolute = pc.binary_join_element_wise(pa.scalar(prefix), relative, "")
    table = table.set_column(table.column_names.index("path"), SCHEMA.field("path"), absolute)
    own_time = os.stat(file).st_mtime_ns
    changes = [text for source in about.get("sources", []) for text in _changes(folder, source, own_time, absolute)]
    return table.replace_schema_metadata(None), changes


def is_own(file: str) -> bool:
    """Whether a file was written by `write`.

    Raises:
        UserError: it is no parquet.
    """
    try:
        return _KEY in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: not a manifest ({error}). Remove or rename it.") from error


def _settled(table: pa.Table, file: str) -> pa.Table:
    """With the columns' types, and "" where a text is missing: other programs may have written the file."""
    try:
        if "path" not in table.column_names and {"image", "caption"} <= set(table.column_names):
            table = _of_pairs(table, os.path.dirname(os.path.abspath(file)))
        if "path" not in table.column_names:
            raise KeyError("no column path")
        for field in SCHEMA:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(len(table), field.type))
        for field in (*SCHEMA, *MEASURED, order.FIELD):
            if field.name in table.column_names:
                column = table[field.name].cast(field.type)
                if field.name in ("label", "split", "group", "caption"):
                    column = column.fill_null("")
                if field.name == "error":
                    column = pc.if_else(pc.equal(column, ""), None, column)
                table = table.set_column(table.column_names.index(field.name), field, column)
    except (KeyError, pa.ArrowException) as error:
        raise UserError(f"{file}: not a manifest ({error}). It has the columns {', '.join(SCHEMA.names)}.") from error
    if table["path"].null_count:
        raise UserError(f"{file}: a row without a path. Make it anew: unveil data check FOLDER")
    strange = [name for name in table["split"].unique().to_pylist() if name not in ("", *SPLITS)]
    if strange:
        raise UserError(f"{file}, column split: {strange[0]!r} is none of {', '.join(SPLITS)}.")
    return table


def _of_pairs(table: pa.Table, folder: str) -> pa.Table:
    """A list of image,caption as a manifest: a row for each caption, images beside the list or in images/."""
    names = ["path" if name == "image" else name for name in table.column_names]
    table = table.rename_columns(names)
    if pa.types.is_list(table["caption"].type) or pa.types.is_large_list(table["caption"].type):
        captions = table["caption"].combine_chunks()
        rows = pc.list_parent_indices(captions)
        table = table.drop_columns(["caption"]).take(rows).append_column("caption", pc.list_flatten(captions))
    first = table["path"][0].as_py() if len(table) else None
    if isinstance(first, str) and not os.path.lexists(os.path.join(folder, first)):
        inside = os.path.join(folder, "images", first)
        if os.path.lexists(inside):
            paths = pc.binary_join_element_wise(pa.scalar("images"), table["path"].cast(pa.string()), "/")
            table = table.set_column(table.column_names.index("path"), "path", paths)
    return table


def _refuse_outside(table: pa.Table, file: str) -> None:
    outside = r"^/|(^|/)\.\.(/|$)|\x00|^$" + (r"|\\|^[A-Za-z]:" if os.name == "nt" else "")
    paths = table["path"]
    if os.name != "nt" and _surely_inside(paths):
        return
    mask = pc.match_substring_regex(paths, outside)
    row = pc.index(mask, True).as_py()
    if row >= 0:
        raise UserError(
            f"{file}, row {row}: the path {table['path'][row].as_py()!r} leaves the folder of the manifest. Paths are "
            "relative to it and stay below it: put the manifest above the files, or link their folder into its own."
        )


def _surely_inside(paths: pa.ChunkedArray) -> bool:
    """A look at all bytes at once, which takes a tenth of the time; False may be a mistake, True is none."""
    if len(paths) and not pc.min(pc.binary_length(paths)).as_py():
        return False
    for chunk in paths.chunks:
        text = chunk.buffers()[2]
        content = bytes(text) if text is not None else b""
        if b".." in content or b"\0" in content:
            return False
    return not pc.any(pc.starts_with(paths, "/")).as_py()


def survey(folder: str, base: str, suffixes: Collection[str]) -> dict[str, Any]:
    """What the rows of a folder are made from, to be compared later.

    Args:
        folder: that is listed, absolute.
        base: the folder of the manifest.
        suffixes: of the files that count.
    """
    labels = _digest_of_list(folder)
    source: dict[str, Any] = {"folder": os.path.relpath(folder, base).replace(os.sep, "/"), "labels": labels}
    if labels is None:
        source["suffixes"] = sorted(suffixes)
        source["folders"] = {
            os.path.relpath(inner, folder).replace(os.sep, "/"): [os.stat(inner).st_mtime_ns, _names(inner, suffixes)]
            for inner in walk(folder).folders
        }
    return source


def _changes(base: str, source: dict[str, Any], own_time: int, paths: pa.ChunkedArray) -> list[str]:
    folder = os.path.normpath(os.path.join(base, source["folder"]))
    labels = _digest_of_list(folder)
    if labels != source["labels"]:
        what = "is new" if source["labels"] is None else "is gone" if labels is None else "is another"
        return [f"{list_in(folder) or os.path.join(folder, LISTS[0])} {what}"]
    if labels is not None or all(
        _same(
            os.path.join(folder, inner),
            (mtime, own_time if inner == source["folder"] == "." else mtime),
            names,
            source["suffixes"],
        )
        for inner, (mtime, names) in source["folders"].items()
    ):
        return []
    suffixes = source["suffixes"]
    now = {as_text(path) for path in list_files(folder, suffixes) if suffix(path) in suffixes}
    before = {path for path in paths.to_pylist() if path.startswith(folder + os.sep)}
    counts = [(len(now - before), "new"), (len(before - now), "gone")]
    found = [f"{count} {'file is' if count == 1 else 'files are'} {what}" for count, what in counts if count]
    return [f"{' and '.join(found)} in {folder}"] if found else []


def _same(folder: str, times: Collection[int], names: str, suffixes: Collection[str]) -> bool:
    try:
        # After a copy every time is another; then the names decide.
        return os.stat(folder).st_mtime_ns in times or _names(folder, suffixes) == names
    except OSError:
        return False


def _names(folder: str, suffixes: Collection[str]) -> str:
    """A digest of the names of the files and folders that count."""
    with os.scandir(folder) as entries:
        names = sorted(
            os.fsencode(entry.name)
            for entry in entries
            if not entry.name.startswith(".") and (suffix(entry.name) in suffixes or entry.is_dir())
        )
    return hashlib.blake2b(b"\0".join(names), digest_size=8).hexdigest()


def _digest_of_list(folder: str) -> str | None:
    try:
        with open(list_in(folder) or os.path.join(folder, LISTS[0]), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def of(path: str) -> str | None:
    """The manifest that speaks for a path: the one in a folder, or the path itself; None where there is none."""
    if os.path.isdir(path):
        kept = os.path.join(path, NAME)
        return kept if os.path.isfile(kept) else None
    return path if path.lower().endswith(".parquet") else None


def suffixes_in(file: str) -> dict[str, int]:
    """How many rows of a kept manifest have which suffix.

    Raises:
        UserError: as for `read`.
    """
    paths = pc.utf8_lower(read(file)[0]["path"])
    found = pc.extract_regex(paths, r"(?P<suffix>\.[^./\\]*)?$")
    counts = pc.struct_field(found, [0]).value_counts()
    return {entry["values"] or "": entry["counts"] for entry in counts.to_pylist()}
