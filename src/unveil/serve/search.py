"""A query → the most similar windows of an index, on the screen and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.data.suffixes import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from unveil.errors import UserError
from unveil.serve.embed import SHARED, embed_text, embeddings, fingerprint, knows_texts, space
from unveil.serve.figures import kind_of, player, thumbnail
from unveil.serve.index import Hit, nearest, read_index
from unveil.serve.pages import write_page
from unveil.serve.windows import clock

if TYPE_CHECKING:
    from unveil.run import Run


def search(
    folder: Path | str,
    query: Path | str,
    top: int = 10,
    run: Run | None = None,
    drop_query: bool = False,
    batch: int = 8,
    device: str = "auto",
) -> list[Hit]:
    """The windows of an index that are most similar to a file, or to a text.

    The query is embedded as the index was: same run, layer, pooling, hop and precision. Of a query with several windows, each
    window of the index is compared with the one it is most similar to.

    Args:
        folder: what `embed` wrote.
        query: a file; or, of an index in a space shared with texts, what is no file: a text.
        top: hits wanted.
        run: the run of the index; None for where index.json says it is.
        drop_query: leave out the query's own file.
        batch: windows through the network at once.
        device: where the run is put when it is loaded here.

    Returns:
        Hits, the most similar first.

    Raises:
        UserError: no index, no run, other weights than the index was made with, or a query that cannot be read.
    """
    if top < 1:
        raise UserError(f"--top {top}: at least 1")
    info = read_index(folder)
    text = is_text(query)
    if not text and not _is_file(query):
        raise UserError(f"{query}: no such file; the query of a search is one file")
    if text and info["pool"] != SHARED:
        raise UserError(
            f"{query}: no such file; the query of a search is one file (or a text, in an index of clip's or flip's shared space)"
        )
    if run is None:
        from unveil.run import load

        if not (Path(info["run"]) / "run.json").is_file():
            raise UserError(f"the run {info['run']}, with which {folder} was made, is not there; say where with --run")
        run = load(info["run"], device)
    if fingerprint(run) != info["weights"]:
        raise UserError(
            f"{folder} was made with other weights than {run.path} holds now: their embeddings cannot be compared. "
            f"Make the index anew: unveil embed {run.path} --data FILES --out {folder} --overwrite"
        )
    if text and not knows_texts(run):
        raise UserError(f"{run.path} knows no texts; the query of a search in {folder} is a file.")
    if text:
        return nearest(folder, embed_text(run, str(query)), top)
    use = reader_of(run, query, info)
    queries = embeddings(
        run, [query], layer=info["layer"], pool=info["pool"], hop=info["hop"], batch=batch, use=use,
        precision=info.get("precision", "32"),
    )  # fmt: skip
    return nearest(folder, queries, top, drop=query if drop_query else None)


def reader_of(run: Run, query: Path | str, info: dict[str, Any]) -> str:
    """The tower that embeds a query: the index's own, or, where that does not read such files, another one of its shared space.

    Raises:
        UserError: another tower reads them, but its embeddings cannot be compared with those of the index.
    """
    own = info.get("use", run.recipe.data.signal.key)
    name = Path(query).suffix.lower()
    if name in run.tower(own).data.signal.suffixes:
        return own
    others = [key for key in run.objective.towers if key not in ("text", own)]  # pyright: ignore[reportGeneralTypeIssues]
    readers = [key for key in others if name in run.tower(key).data.signal.suffixes]
    if not readers:
        return own  # whatever its name, it may still be such a file
    near = [key for key in readers if key in space(run)]
    if info["pool"] == SHARED and near:
        return near[0]
    there = space(run)
    how = f" Make an index in the shared space: unveil embed … --use {there[0]}." if near and there else ""
    raise UserError(
        f"{query}: such files are read by the tower {readers[0]!r}, and the index was made by {own!r}, in another space.{how}"
    )


def is_text(query: Path | str) -> bool:
    """Whether a query is no file, nor looks like the name of one."""
    return not _is_file(query) and Path(query).suffix.lower() not in (VIDEO_SUFFIXES | IMAGE_SUFFIXES | SOUND_SUFFIXES)


def _is_file(query: Path | str) -> bool:
    try:
        return Path(query).is_file()
    except (OSError, ValueError):  # a text may be too long for a name
        return False


def print_hits(hits: Sequence[Hit], quiet: bool = False) -> list[Hit]:
    """Hits on the screen; and back as a list."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not quiet:
        table = Table()
        table.add_column("similarity", justify="right")
        table.add_column("time", no_wrap=True)
        table.add_column("file", overflow="fold")
        for hit in hits:
            table.add_row(f"{hit.similarity:.4f}", clock(hit.start, hit.end), Text(hit.path))
        Console().print(table)
    return list(hits)


def search_page(hits: Sequence[Hit], query: Path | str, path: Path | str, key: str = "") -> None:
    """One self-contained HTML page: the query and its hits as pictures (the middle frame; of sound a spectrogram, and what plays
    it), with times and similarities.

    Args:
        hits: of `search`.
        query: the file or text searched with.
        path: of the page.
        key: of the signal that the index is of; "" for what the files' names say.
    """
    # The query's picture is its middle, for which its length must be known.
    cards = [_card(hit.path, hit.start, hit.end, hit.similarity, key) for hit in hits]
    timed = not hits or hits[0].start is not None
    if is_text(query):
        first = {**_CARD, "name": str(query), "error": str(query)}
    else:
        try:
            length = kind_of(query, timed, key).lasts(query)
            first = _card(str(query), None if length is None else 0.0, length, 1.0, key)
        except UserError as error:
            first = {**_CARD, "path": str(query), "name": Path(query).name, "error": str(error)}
    write_page(Path(path), "search.html.j2", query=first, hits=cards)


_CARD: dict[str, Any] = {
    "path": "",
    "name": "",
    "time": "",
    "similarity": 1.0,
    "picture": None,
    "sound": None,
    "error": "",
}


def _card(path: str, start: float | None, end: float | None, similarity: float, key: str) -> dict[str, Any]:
    card = {**_CARD, "path": path, "name": Path(path).name, "time": clock(start, end), "similarity": similarity}
    kind = kind_of(path, start is not None, key)
    try:
        return {
            **card,
            "picture": thumbnail(path, start, end, key=key),
            "sound": player(kind.excerpt(path, start, end)),
        }
    except (UserError, OSError) as error:  # moved or deleted since it was embedded
        return {**card, "error": str(error)}
