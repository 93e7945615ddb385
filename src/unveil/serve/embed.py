"""Files → embeddings: parquet written as it goes, or an array."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unveil.data.workers import ANSWERING, reporting_workers
from unveil.encoders import shown
from unveil.errors import UserError
from unveil.evaluation.features import pooled
from unveil.precision import lowered
from unveil.serve.windows import BadFile, Window, stream
from unveil.storage import replacing, write_json

if TYPE_CHECKING:
    from unveil.run import Run

FORMAT = 1
INDEX = "index.json"
EMBEDDINGS = "embeddings.parquet"
VECTORS = "vectors.f32"
"""The embeddings again, of length one, as nothing but float32: what a search maps into memory."""
ROW_GROUP = 4096


SHARED = "shared"
"""The pooling of a network of two towers: what is projected into the space that signals and texts share."""


class Embedded(NamedTuple):
    """Windows and their embeddings, float32 [B,D]."""

    windows: list[Window]
    x: Tensor


def embedded(
    run: Run,
    paths: Sequence[Path | str],
    layer: int | None = None,
    pool: str | None = None,
    hop: float | None = None,
    batch: int = 8,
    use: str | None = None,
    workers: int = 0,
    precision: str = "32",
) -> Iterator[Embedded | BadFile]:
    """The stream behind `embed`, `embeddings` and `search`; arguments as for `embed`."""
    key, encoder, data = run.tower(use or own_tower(run, layer, pool))
    pool = pool or own_pool(run, layer, key)
    if pool == SHARED and (layer is not None or key not in space(run)):
        there = f"; this one's towers are {', '.join(space(run))} (--use)" if space(run) else ""
        raise UserError(
            f"--pool shared: only of the output of a tower that shares its space with others (clip, flip, mavil){there}."
        )
    for item in stream(data, paths, hop, batch, workers):
        if isinstance(item, BadFile):
            yield item
            continue
        for part in item.parts(run.device):
            with torch.inference_mode(), lowered(run.device, precision, run.recipe.precision):
                x = shown(encoder, part.on(run.device, data), key)
                if pool == SHARED:
                    found = run.objective.features(key, x)  # pyright: ignore[reportCallIssue]
                else:
                    found = pooled(encoder, encoder(x, layer=layer), pool)
                found = found.float().cpu()
            yield Embedded(part.windows, found)


def knows_texts(run: Run) -> bool:
    """Whether a run has a tower for texts beside its signal's."""
    return "text" in run.objective.towers  # pyright: ignore[reportOperatorIssue]


def space(run: Run) -> list[str]:
    """The towers whose features are projected into one space; none where there is no such space."""
    return list(getattr(run.objective, "projections", ()))


def own_tower(run: Run, layer: int | None, pool: str | None) -> str:
    """The tower where none is asked for: that of the whole signal; but the first of the shared space where only others are in it."""
    key = run.recipe.data.signal.key
    wanted = pool == SHARED or (pool is None and layer is None)
    return key if not wanted or key in space(run) or not space(run) else space(run)[0]


def own_pool(run: Run, layer: int | None, key: str) -> str:
    """The pooling of a tower where none is asked for: into the shared space where it has a place there, otherwise the mean."""
    return SHARED if layer is None and key in space(run) else "mean"


def embed_text(run: Run, text: str) -> np.ndarray:
    """A text in the space that it shares with signals, float32 [1,D].

    Raises:
        UserError: the run has no tokenizer.
    """
    assert run.recipe.data.text is not None
    with torch.inference_mode():
        ids = run.recipe.data.text.encode([text]).to(run.device)
        return run.objective.features("text", ids).float().cpu().numpy()  # pyright: ignore[reportCallIssue]


def embeddings(
    run: Run,
    paths: Sequence[Path | str],
    layer: int | None = None,
    pool: str | None = None,
    hop: float | None = None,
    batch: int = 8,
    use: str | None = None,
    workers: int = 0,
    precision: str = "32",
) -> np.ndarray:
    """Embeddings as an array, one row for every window of every file, in order. Arguments as for `embed`.

    Returns:
        np.ndarray: float32 [n,D].

    Raises:
        UserError: also for a file that cannot be read.
    """
    rows = []
    for item in embedded(run, paths, layer, pool, hop, batch, use, workers, precision):
        if isinstance(item, BadFile):
            raise UserError(item.error)
        rows.append(item.x.numpy())
    return np.concatenate(rows)


def embed(
    run: Run,
    paths: Sequence[Path | str],
    out: Path | str,
    layer: int | None = None,
    pool: str | None = None,
    hop: float | None = None,
    batch: int = 8,
    overwrite: bool = False,
    quiet: bool = True,
    use: str | None = None,
    workers: int = 0,
    precision: str = "32",
) -> Path:
    """Embed files and folders into a folder that `search` reads.

    `embeddings.parquet` has the columns path (absolute), start, end (seconds; null for images) and embedding
    (fixed_size_list<float32>), a row for every window, written in row groups as they come; `vectors.f32` the same embeddings
    of length one, for `search` alone; `index.json` says how they were made: `run`, `recipe`, `weights` (their SHA-256), `use` (the
    tower), `layer`, `pool`, `hop`, `precision`, `width`, `count`, and `bad`,
    the files that could not be read. Either the index is whole, or there is none.

    Args:
        run: whose encoder embeds.
        paths: files and folders (searched through).
        out: folder of the index.
        layer: after which block; None for the encoder's output.
        pool: "mean", "max", "class", "encoder", or "shared" (with texts, or of sound and sight); None for `own_pool`.
        hop: seconds between windows; None for windows that touch.
        batch: windows through the network at once.
        overwrite: replace the index that is there.
        quiet: do not print files that could not be read, nor the count at the end.
        use: the tower, by its name; None for `own_tower`.
        workers: processes that read ahead of the network, where there are many files; -1 for one per core, less one.
        precision: "32" or "bf16", in which the network computes.

    Returns:
        The folder of the index.

    Raises:
        UserError: an index is there already, a path is not there, or no file could be read.
    """
    import pyarrow.parquet as pq
    from rich.console import Console

    console = Console(stderr=True)
    out = Path(out)
    use = use or own_tower(run, layer, pool)
    lowered(run.device, precision, run.recipe.precision)  # refused before the old index is gone
    if (out / INDEX).exists():
        if not overwrite:
            raise UserError(f"--out {out}: holds an index already; give --overwrite to make it anew, or another folder")
        (out / INDEX).unlink()  # from here on there is none, until the new one is whole
    out_existed = out.exists()
    width, count, bad = 0, 0, []
    pending: list[Embedded] = []
    writer = None
    try:
        with (
            reporting_workers(ANSWERING),
            replacing(out / VECTORS) as vectors,
            replacing(out / EMBEDDINGS) as temporary,
        ):
            try:
                for item in embedded(run, paths, layer, pool, hop, batch, use, workers, precision):
                    if isinstance(item, BadFile):
                        bad.append({"path": _absolute(item.path), "error": item.error})
                        if not quiet:
                            console.print(f"left out: {item.error}", style="red", highlight=False, markup=False)
                        continue
                    width, count = item.x.shape[1], count + len(item.windows)
                    pending.append(item)
                    if sum(len(e.windows) for e in pending) >= ROW_GROUP:
                        writer = writer or pq.ParquetWriter(temporary, _schema(width))
                        writer.write_table(_table(pending, width))
                        _append(pending, vectors)
                        pending.clear()
                if not count:
                    raise UserError(f"none of the files could be read. The first: {bad[0]['error']}")
                if pending:
                    writer = writer or pq.ParquetWriter(temporary, _schema(width))
                    writer.write_table(_table(pending, width))
                    _append(pending, vectors)
            finally:
                if writer is not None:
                    writer.close()
    except BaseException:
        if not out_existed:
            shutil.rmtree(out, ignore_errors=True)
        raise
    info = {
        "format": FORMAT,
        "run": _absolute(run.path),
        "recipe": run.info["recipe"],
        "signal": run.tower(use).data.signal.key,
        "weights": fingerprint(run),
        "use": use,
        "layer": layer,
        "pool": pool or own_pool(run, layer, use),
        "hop": hop,
        "precision": precision,
        "width": width,
        "count": count,
        "bad": bad,
    }
    write_json(out / INDEX, info)
    if not quiet:
        console.print(f"{count} embeddings of width {width} written to {out}", highlight=False, markup=False)
    return out


def fingerprint(run: Run) -> str:
    """SHA-256 of the run's weights: embeddings of two networks cannot be compared, though their widths agree."""
    with (run.path / "weights.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _absolute(path: Path | str) -> str:
    """The index is read from elsewhere, and later. (A name that is no UTF-8, which parquet cannot hold, is escaped.)"""
    return os.fsencode(Path(path).absolute()).decode("utf-8", "backslashreplace")


def _schema(width: int) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("start", pa.float64()),
            ("end", pa.float64()),
            pa.field("embedding", pa.list_(pa.float32(), width), nullable=False),
        ]
    )


def _append(pending: list[Embedded], file: Path) -> None:
    with file.open("ab") as opened:
        for item in pending:
            opened.write(F.normalize(item.x, dim=1, eps=1e-12).numpy().astype("<f4").tobytes())


def _table(pending: list[Embedded], width: int) -> Any:
    import pyarrow as pa

    windows = [window for item in pending for window in item.windows]
    flat = pa.array(torch.cat([item.x for item in pending]).flatten().numpy(), pa.float32())
    columns = [
        pa.array([_absolute(window.path) for window in windows], pa.string()),
        pa.array([window.start for window in windows], pa.float64()),
        pa.array([window.end for window in windows], pa.float64()),
        pa.FixedSizeListArray.from_arrays(flat, width),
    ]
    return pa.Table.from_arrays(columns, schema=_schema(width))
