"""Tokenizers of text: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), trained here or read from a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from unveil.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
#: Names of the tokens around a text, in the tokenizers that are in use.
AROUND = ((START, END), ("[CLS]", "[SEP]"), ("<s>", "</s>"), ("<bos>", "<eos>"), (END, END))
#: What is read of a merges file: CLIP's vocabulary has 49,408 entries, though the file goes on.
CLIP_MERGES = 49152 - 256 - 2
LARGEST = 2**26
"""Bytes of a file that is taken for a tokenizer."""


class Text(NamedTuple):
    """A tokenizer and the ids it puts around a text.

    Attributes:
        tokenizer: of the library `tokenizers`.
        start, end: ids.
        vocabulary: number of ids, the largest plus one.
    """

    tokenizer: Tokenizer
    start: int
    end: int
    vocabulary: int

    def ids(self, texts: list[str], most: int) -> list[list[int]]:
        """The ids of texts, each between `start` and `end`, cut to `most` of them."""
        found = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [[self.start, *entry.ids[: most - 2], self.end] for entry in found]


def train(texts: Iterable[str], vocabulary: int) -> Text:
    """A byte-level BPE of texts in lower case: a function of the texts, in whatever order, and of nothing else.

    Args:
        texts: at least one.
        vocabulary: ids at most; fewer where no pair is left that occurs twice.

    Raises:
        UserError: a vocabulary that the bytes alone exceed.
    """
    least = 256 + 2
    if vocabulary < least:
        raise UserError(f"--vocabulary {vocabulary}: at least {least}, one for each byte and two around a text.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return _closed(tokenizer)


def _closed(tokenizer: Tokenizer) -> Text:
    """With the tokens around a text, whose ids are the largest (as in CLIP's vocabulary)."""
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (START, END)])
    return described(tokenizer, "the tokenizer")


def read(path: str | Path) -> Text:
    """A tokenizer from a file: Hugging Face's tokenizer.json, or CLIP's merges (merges.txt, bpe_simple_vocab_16e6.txt.gz).

    Args:
        path: a file, or a folder that holds tokenizer.json or merges.txt.

    Raises:
        UserError: there is none, or it is of no kind that is known here.
    """
    path = Path(path)
    if path.is_dir():
        inside = [path / name for name in ("tokenizer.json", "merges.txt") if (path / name).is_file()]
        if not inside:
            raise UserError(f"--tokenizer {path}: holds no tokenizer.json and no merges.txt.")
        path = inside[0]
    if not path.is_file():
        raise UserError(f"--tokenizer {path}: no such file.")
    try:
        text = _read_text(path)
        if path.suffix == ".json":
            if not isinstance(json.loads(text), dict) or '"model"' not in text:
                raise ValueError("it describes no model")
            return described(Tokenizer.from_str(text), str(path))
        return _of_merges(text.splitlines(), path)
    except UserError:
        raise
    except Exception as error:  # the library raises bare exceptions
        raise UserError(
            f"--tokenizer {path}: cannot be read ({error}). What is read is a tokenizer.json of Hugging Face's, or CLIP's merges "
            "(merges.txt, bpe_simple_vocab_16e6.txt.gz)."
        ) from error


def _read_text(path: Path) -> str:
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("it is too long for a tokenizer")
    return content.decode("utf-8")


def _of_merges(lines: list[str], path: Path) -> Text:
    """CLIP's tokenizer: texts in lower case, words by its pattern, each with its end marked; ids follow from the merges' order."""
    pairs = [tuple(line.split()) for line in lines[1 : CLIP_MERGES + 1] if line.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError("a line below its first one holds no pair")
    symbols = _byte_symbols()
    names = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in pairs)]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(pair[0], pair[1]) for pair in pairs]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase(), normalizers.Strip()]
    )
    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _closed(tokenizer)


def _byte_symbols() -> list[str]:
    """The 256 letters that stand for bytes, in the order of the published vocabularies: printable ones first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [*map(chr, printable), *(chr(256 + number) for number in range(others))]


def described(tokenizer: Tokenizer, source: str) -> Text:
    """What has to be known of a tokenizer.

    Raises:
        UserError: it knows none of the tokens `AROUND` a text, or the one behind it has the id of padding.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for start, end in AROUND:
        first, last = tokenizer.token_to_id(start), tokenizer.token_to_id(end)
        if first is not None and last is not None:
            break
    else:
        raise UserError(
            f"{source}: knows none of {', '.join(' … '.join(pair) for pair in AROUND)} to put around a text."
        )
    if last == 0:
        raise UserError(f"{source}: the token behind a text, {end}, has the id 0, which stands for padding here.")
    vocabulary = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return Text(tokenizer, first, last, vocabulary)
