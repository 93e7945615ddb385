"""Texts beside signals, as token ids: what a recipe asks for, settled when a run begins and kept in its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unveil.data.row import Row
from unveil.errors import DecodeError, UserError

if TYPE_CHECKING:
    from unveil.data.bpe import Text
    from unveil.data.manifest import Manifest

FILE = "tokenizer.json"
PADDING = 0
REPLACED = "\ufffd"
"""Stands in a caption where bytes were no UTF-8."""


class Captions:
    """Captions → token ids int64 [L]: a start, the text's own (cut where it is too long), an end, and 0 behind it.

    The tokenizer is not known before the data are: `settle` trains or reads one and writes it into a run's folder, `load`
    finds it there.

    Args:
        context: L.
        vocabulary: number of ids: the tokenizer's, or how many one that is trained may have at most.
        source: file of a tokenizer; empty to train one.
    """

    def __init__(self, context: int, vocabulary: int, source: str = ""):
        if context < 3:
            raise UserError(f"--context {context}: at least 3, for a start, a word and an end.")
        self.context = context
        self.vocabulary = vocabulary
        self.source = source
        self.text: Text | None = None

    def __repr__(self) -> str:
        return f"Captions(context={self.context}, vocabulary={self.vocabulary})"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts → ids int64 [n, L].

        Raises:
            UserError: the tokenizer is not known (an imported run without one).
        """
        if self.text is None:
            raise UserError("this run has no tokenizer.json, so no text can be read: give it one with --tokenizer.")
        rows = torch.full((len(texts), self.context), PADDING, dtype=torch.int64)
        for row, ids in zip(rows, self.text.ids(list(texts), self.context), strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def of(self, row: Row) -> Tensor:
        """The ids of a row's caption, int64 [L].

        Raises:
            DecodeError: it has none, or one that is no UTF-8.
        """
        check(row)
        return self.encode([row.caption])[0]

    def settle(self, manifest: Manifest, folder: Path, start: str | None, given: int | None) -> dict[str, Any]:
        """Train or read the tokenizer, and keep it in a run's folder; returns what run.json says of it.

        Args:
            manifest: what is trained on.
            folder: of the run.
            start: the run whose weights the new one begins with; its tokenizer is taken where no file is named.
            given: the vocabulary asked for; None where the tokenizer decides it.

        Raises:
            UserError: no captions, no such file, or a vocabulary that is not the one asked for.
        """
        from unveil.data import bpe

        captions = sorted({row for row in manifest.column("caption") if row and REPLACED not in row})
        if not captions:
            raise UserError(
                f"none of the {len(manifest)} files has a caption. Put beside the images a captions.csv with the columns "
                "image,caption (or a captions.parquet), or give webdataset archives (.tar) with .txt beside the images."
            )
        source = self.source
        if not source and start and (Path(start) / FILE).is_file():
            source = str(Path(start) / FILE)
        text = bpe.read(source) if source else bpe.train(captions, self.vocabulary)
        made = f"read from {source}" if source else f"trained on {len(captions)} captions"
        if source and given is not None and given != text.vocabulary:
            raise UserError(
                f"--vocabulary {given}: the tokenizer {source} has {text.vocabulary} ids; leave the flag out."
            )
        return keep(text, folder, made)

    def load(self, folder: Path, recorded: str | None = None) -> None:
        """Read the tokenizer of a run; without one, texts cannot be encoded.

        Args:
            folder: of the run.
            recorded: its SHA-256, as run.json has it.

        Raises:
            UserError: it is another one, or damaged.
        """
        from unveil.data import bpe

        if not (folder / FILE).is_file():
            if recorded:
                raise UserError(f"{folder / FILE} is missing: the ids of texts cannot be known without it.")
            return
        if recorded and digest(folder) != recorded:
            raise UserError(f"{folder / FILE} is not the tokenizer that this run was trained with.")
        text = bpe.read(folder / FILE)
        if text.vocabulary > self.vocabulary:
            raise UserError(
                f"{folder / FILE} has {text.vocabulary} ids, the network an embedding of {self.vocabulary}."
            )
        self.text = text


def check(row: Row) -> None:
    """Refuse, as a `DecodeError`, a row whose caption says nothing."""
    if not row.caption.strip():
        raise DecodeError(f"{row.path}: its caption is empty.")
    if REPLACED in row.caption:
        raise DecodeError(f"{row.path}: its caption is no UTF-8 ({row.caption[:60]}).")


def by_file(manifest: Manifest) -> tuple[list[int], list[list[str]], list[tuple[str, str]]]:
    """Each file (or segment) once: its first row's number, and all its captions; and (path, error) of captions that say nothing."""
    first: dict[tuple, int] = {}
    rows: list[int] = []
    captions: list[list[str]] = []
    mute: list[tuple[str, str]] = []
    for number, row in enumerate(map(Row._make, zip(*map(manifest.column, Row._fields), strict=True))):
        try:
            check(row)
        except DecodeError as error:
            mute.append((row.path, str(error)))
            continue
        place = first.setdefault((row.path, row.start, row.end), len(rows))
        if place == len(rows):
            rows.append(number)
            captions.append([])
        captions[place].append(row.caption)
    return rows, captions, mute


def keep(text: Text, folder: Path, made: str) -> dict[str, Any]:
    """Write a tokenizer into a run's folder; returns what run.json says of it."""
    from unveil.storage import replacing

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FILE) as temporary:
        temporary.write_text(text.tokenizer.to_str(), encoding="utf-8")
    return {"file": FILE, "sha256": digest(folder), "vocabulary": text.vocabulary, "made": made}


def digest(folder: Path) -> str:
    """SHA-256 of the tokenizer in a folder."""
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
