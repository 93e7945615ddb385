"""Captions as a column of the manifest, and as token ids."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pairs import PNG_NAMES, write_folder

from unveil.data import Dataset, Image, Manifest, Row, bpe, captions
from unveil.data.captions import Captions
from unveil.errors import DecodeError, UserError
from unveil.recipe import Data

TEXTS = ["a red square", "a green square", "all of it is red", "a square, and another square", "Ünïcode ☃ too"]


# ---- lists


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("inside", ["images", "."])
def test_a_row_for_each_caption(tmp_path: Path, kind: str, inside: str) -> None:
    folder = write_folder(tmp_path / "d", 4, kind, inside)
    for source in (folder, folder / f"captions.{kind}"):
        manifest = Manifest.scan([source], Image.suffixes)
        assert len(manifest) == 8
        assert manifest.captioned
        assert manifest.column("caption")[:2] == ["a red square", "all of it is red"]
        assert manifest.row(1).path == manifest.row(0).path == str((folder / inside / PNG_NAMES[0]).resolve())


def test_captions_of_one_cell(tmp_path: Path) -> None:
    write_folder(tmp_path, 2, "csv")
    (tmp_path / "captions.csv").unlink()
    pq.write_table(
        pa.table({"image": PNG_NAMES[:2], "caption": [["one", "two"], ["three"]]}), tmp_path / "captions.parquet"
    )
    assert Manifest.scan([tmp_path], Image.suffixes).column("caption") == ["one", "two", "three"]


def test_the_hash_without_captions_is_what_it_was(tmp_path: Path) -> None:
    rows = [Row("/d/a.png", "x"), Row("/d/b.png", "y")]
    old = pa.table({name: Manifest.of(rows).table[name] for name in Row._fields if name != "caption"})
    assert Manifest(old).hash == Manifest.of(rows).hash
    assert Manifest.of([row._replace(caption="c") for row in rows]).hash != Manifest.of(rows).hash


def test_mistakes_in_a_list(tmp_path: Path) -> None:
    for text, said in (
        ("image,captoin\na.png,x\n", r"unknown column 'captoin' \(caption\?\)"),
        ("caption\nx\n", "no column 'path'"),
        ("image,caption\n../a.png,x\n", "leaves the folder"),
        ("image,caption\nabsent.png,x\n", "no such file"),
    ):
        (tmp_path / "captions.csv").write_text(text)
        with pytest.raises(UserError, match=said):
            Manifest.scan([tmp_path], Image.suffixes)
    pq.write_table(pa.table({"image": ["../a.png"], "caption": ["x"]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="leaves the folder"):
        Manifest.scan([tmp_path / "p.parquet"], Image.suffixes)


def test_bad_captions_are_named_and_another_row_stands_in(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, 3)
    (folder / "captions.csv").write_bytes(b"image,caption\n000.png,\n001.png,caf\xe9\n002.png,fine\n")
    manifest = Manifest.scan([folder], Image.suffixes)
    assert manifest.column("caption") == ["", "caf\ufffd", "fine"]
    text = Captions(8, 300)
    text.text = bpe.train(["fine"], 300)
    dataset = Dataset(manifest, Data(Image(), text=text), None, training=True, seed=0)
    for index, said in ((0, "its caption is empty"), (1, "no UTF-8")):
        (sample,) = dataset[0, index]
        assert said in sample["bad"][0][1]
        assert torch.equal(sample["text"], text.encode(["fine"])[0])
    assert dataset[0, 2][0]["bad"] == []


# ---- tokenizers


def test_a_tokenizer_is_a_function_of_the_set_of_texts() -> None:
    made = [bpe.train(texts, 300).tokenizer.to_str() for texts in (TEXTS, TEXTS[::-1], TEXTS)]
    assert made[0] == made[1] == made[2]
    assert bpe.train([*TEXTS, "a triangle", "a triangle"], 300).tokenizer.to_str() != made[0]


def test_ids_around_a_text() -> None:
    text = bpe.train(TEXTS * 2, 300)
    assert text.vocabulary <= 300
    assert (text.start, text.end) == (text.vocabulary - 2, text.vocabulary - 1)
    long, empty = text.ids(["a square " * 50, ""], 7)
    assert len(long) == 7
    assert (long[0], long[-1]) == (text.start, text.end)
    assert empty == [text.start, text.end]
    assert text.ids(["A Red SQUARE"], 20) == text.ids(["a red square"], 20)
    (ids,) = text.ids(["Ünïcode ☃ too"], 60)
    assert text.tokenizer.decode(ids[1:-1]).strip() == "ünïcode ☃ too"  # bytes know every text


def test_encoded_texts_are_padded(tmp_path: Path) -> None:
    words = Captions(10, 300)
    with pytest.raises(UserError, match="no tokenizer"):
        words.encode(["x"])
    kept = captions.keep(bpe.train(TEXTS, 300), tmp_path, "trained")
    words.load(tmp_path, kept["sha256"])
    ids = words.encode(["a red square", ""])
    assert (ids.shape, ids.dtype) == ((2, 10), torch.int64)
    assert (ids[1, 2:] == 0).all()
    with pytest.raises(DecodeError, match="empty"):
        words.of(Row("a.png", caption=" "))
    with pytest.raises(UserError, match="not the tokenizer"):
        words.load(tmp_path, "0" * 64)
    with pytest.raises(UserError, match="embedding of 100"):
        Captions(10, 100).load(tmp_path)


def test_a_tokenizer_of_others(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "dog": 5}
    theirs = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    theirs.pre_tokenizer = __import__("tokenizers").pre_tokenizers.Whitespace()
    theirs.save(str(tmp_path / "tokenizer.json"))
    text = bpe.read(tmp_path)  # a folder that holds it
    assert text.ids(["a dog sits"], 9) == [[2, 4, 5, 1, 3]]
    assert text.vocabulary == 6
    for name, content, said in (
        ("none.json", json.dumps({"a": 1}), "describes no model"),
        ("broken.json", "{", "cannot be read"),
        ("around.json", theirs.to_str().replace("[SEP]", "<end>"), "knows none of"),
        (
            "zero.json",
            theirs.to_str().replace("[PAD]", "[S]").replace("[SEP]", "[PAD]").replace("[S]", "[SEP]"),
            "id 0",
        ),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=said):
            bpe.read(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        bpe.read(tmp_path / "absent")


def test_clips_merges(tmp_path: Path) -> None:
    """Ids as CLIP's own code gives them: 256 bytes, the same at a word's end, the merges in their order, the two around a text."""
    merges = ["#version: 0.2", "d o", "do g</w>", "c a", "ca t</w>"]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    with gzip.open(tmp_path / "bpe.txt.gz", "wt") as file:
        file.write("\n".join(merges) + "\n")
    for path in (tmp_path / "merges.txt", tmp_path / "bpe.txt.gz"):
        text = bpe.read(path)
        assert text.vocabulary == 512 + 4 + 2
        letter = {chr(b): b - 33 for b in range(33, 127)}
        assert text.ids(["DOG  cat, do"], 20) == [
            [516, 513, 515, 256 + letter[","], letter["d"], 256 + letter["o"], 517]
        ]
    (tmp_path / "wrong.txt").write_text("#version\nd o g\n")
    with pytest.raises(UserError, match="no pair"):
        bpe.read(tmp_path / "wrong.txt")


def test_too_small_a_vocabulary() -> None:
    with pytest.raises(UserError, match="at least 258"):
        bpe.train(TEXTS, 200)
    with pytest.raises(UserError, match="--context 2"):
        Captions(2, 300)
