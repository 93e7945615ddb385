"""An index as `embed` wrote it: what it says of itself, and its windows that are nearest to vectors; exact, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unveil.errors import UserError
from unveil.evaluation.neighbours import Neighbours
from unveil.serve.embed import EMBEDDINGS, FORMAT, INDEX, VECTORS

CHUNK = 4096


class Hit(NamedTuple):
    """A window of the index; `start` and `end` in seconds (None for an image), cosine similarity in [-1, 1]."""

    path: str
    start: float | None
    end: float | None
    similarity: float


def read_index(folder: Path | str) -> dict[str, Any]:
    """The index.json of a folder that `embed` wrote.

    Raises:
        UserError: there is none, or of another format.
    """
    file = Path(folder) / INDEX
    if not file.is_file() or not (Path(folder) / EMBEDDINGS).is_file():
        raise UserError(f"{folder}: not an index; make one with: unveil embed RUN --data FILES --out {folder}")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        found = info.get("format")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): embed again") from error
    if found != FORMAT:
        raise UserError(f"{file} is of format {found}; this unveil reads format {FORMAT}: embed again")
    missing = {"run", "weights", "layer", "pool", "hop", "width"} - set(info)
    if missing:
        raise UserError(f"{file} does not say {', '.join(sorted(missing))}: embed again")
    return info


def nearest(folder: Path | str, queries: np.ndarray, top: int = 10, drop: Path | str | None = None) -> list[Hit]:
    """The windows most similar to any of the queries, best first; of equals the earlier row.

    The vectors are mapped into memory, or read in chunks: of an index of any size little is held.

    Args:
        folder: an index.
        queries: float32 [q,D].
        top: hits wanted.
        drop: a file whose windows are left out.

    Raises:
        UserError: queries of another width than the index's.
    """
    info = read_index(folder)
    width = info["width"]
    if queries.shape[1] != width:
        raise UserError(f"{folder}: embeddings of width {width}, the query's has {queries.shape[1]}: embed again")
    drop = None if drop is None else str(Path(drop).resolve())
    known = torch.from_numpy(_normalised(np.asarray(queries, np.float32)))
    # A file has about as many windows in the index as in the query. Where it has more, more are looked for.
    wanted = top if drop is None else top + len(queries)
    while True:
        found = _best(Path(folder), width, known, wanted)
        told = _hits(Path(folder), width, found)
        hits = [hit for hit in told if drop is None or str(Path(hit.path).resolve()) != drop]
        if len(hits) >= top or len(found) < wanted:
            return hits[:top]
        wanted *= 2


def _best(folder: Path, width: int, queries: torch.Tensor, top: int) -> list[tuple[int, float]]:
    """Rows of an index and their similarity to the query they are most similar to, best first; of equals the earlier row."""
    best = Neighbours(queries, top)
    vectors = _vectors(folder, width)
    if vectors is not None:
        best.look(vectors)
    else:
        for chunk in _chunks(folder / EMBEDDINGS, width):
            x = chunk.column("embedding").flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            best.look(torch.from_numpy(_normalised(x)))
    # What is among the best of the whole is among the best of the query that it is most similar to.
    most: dict[int, float] = {}
    for row, similarity in zip(best.rows.flatten().tolist(), best.products.flatten().tolist(), strict=True):
        if row not in most or similarity > most[row]:
            most[row] = similarity
    return sorted(most.items(), key=lambda item: (-item[1], item[0]))[:top]


def _vectors(folder: Path, width: int) -> torch.Tensor | None:
    """The normalised embeddings, mapped into memory; None of an index that has none, or not as many as rows."""
    file = folder / VECTORS
    with _opened(folder / EMBEDDINGS, width) as opened:
        count = opened.metadata.num_rows
    if not file.is_file() or file.stat().st_size != 4 * width * count:
        return None
    # "c": nothing is ever written, but torch warns of memory that cannot be.
    return torch.from_numpy(np.memmap(file, "<f4", "c", shape=(count, width)))


def _hits(folder: Path, width: int, found: list[tuple[int, float]]) -> list[Hit]:
    """What the index says of rows; only the groups of rows that they lie in are read."""
    with _opened(folder / EMBEDDINGS, width) as opened:
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        first = np.concatenate([[0], np.cumsum(sizes)])
        told: dict[int, tuple[str, float | None, float | None]] = {}
        for group, rows in _by_group(first, [row for row, _ in found]).items():
            table = opened.read_row_group(group, ["path", "start", "end"])
            columns = [table.column(name) for name in ("path", "start", "end")]
            told |= {row: tuple(column[row - first[group]].as_py() for column in columns) for row in rows}
    return [Hit(*told[row], similarity) for row, similarity in found]


def _by_group(first: np.ndarray, rows: list[int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(np.searchsorted(first, row, side="right")) - 1, []).append(row)
    return groups


@contextmanager
def _opened(file: Path, width: int) -> Iterator[Any]:
    """The embeddings, as `embed` wrote them.

    Raises:
        UserError: another file than it writes, or a damaged one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["path", "start", "end", "embedding"]
    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            missing = set(columns) - set(schema.names)
            if missing or schema.field("embedding").type != pa.list_(pa.float32(), width):
                raise ValueError(f"its columns are {', '.join(schema.names)}, or of another type than embed writes")
            yield opened
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read ({error}): embed again") from error


def _chunks(file: Path, width: int) -> Iterator[Any]:
    """The embeddings in pieces."""
    with _opened(file, width) as opened:
        yield from opened.iter_batches(batch_size=CHUNK, columns=["embedding"])


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
