"""Pairs of pictures and captions from the command line: learned from, resumed, asked in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent / "data"))
from pairs import picture, write_folder, write_shards

import unveil
from unveil import cli
from unveil.errors import UserError

SMALL = {
    "size": "debug", "crop": 16, "patch": 8, "context": 8, "vocabulary": 300, "schedule.batch": 8, "loader.batch": 8,
    "loader.workers": 0, "optimizer.lr": 3e-2, "device": "cpu", "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pairs"), 16)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "flip"
    unveil.pretrain("flip", data=folder, out=out, max_steps=60, val_fraction=0.25, **SMALL)
    return out


def test_what_a_run_of_pairs_holds(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    tokenizer = json.loads((run / "tokenizer.json").read_text())
    assert info["flags"]["vocabulary"] == info["tokenizer"]["vocabulary"] < 300
    assert len(tokenizer["model"]["vocab"]) + 2 == info["tokenizer"]["vocabulary"]
    assert info["files"] == {"train": 24, "validation": 8, "bad": 0}  # all captions of a picture on one side
    last = unveil.load(run).log()[-1]
    assert {"loss", "scale", "rankme", "val_retrieval"} <= last.keys()
    assert (run / "best.safetensors").is_file()


def test_it_learns_and_is_asked_in_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Colours it has seen are told apart by their names, and found by them."""
    for colour in ("red", "green", "blue", "grey"):
        for seed in range(3):
            (tmp_path / "data" / colour).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / colour / f"{seed}.png").write_bytes(picture(colour, 100 + seed))
    (tmp_path / "t.txt").write_text("a {} square\nall of it is {}\n")
    common = ["--data", str(tmp_path / "data"), "--device", "cpu", "--workers", "0"]
    cli.run(["evaluate", str(run), "--by", "zero-shot", "--templates", str(tmp_path / "t.txt"), *common])
    report = json.loads((run / "evaluate" / "zero-shot.json").read_text())
    assert report["metrics"]["top1"] >= 0.75
    cli.run(["embed", str(run), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "index"), "--device", "cpu"])
    index = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (index["pool"], index["width"]) == ("shared", 32)
    hits = unveil.search(
        tmp_path / "index", "a green square", top=3, html=tmp_path / "page.html", device="cpu", quiet=True
    )
    assert sum("/green/" in hit.path for hit in hits) >= 2
    page = (tmp_path / "page.html").read_text()
    assert "Most similar to a green square" in page
    assert page.count("data:image/jpeg") == 3
    one = tmp_path / "data" / "red" / "0.png"
    assert unveil.search(tmp_path / "index", one, top=1, device="cpu", quiet=True)[0].path == str(one)


def test_retrieval(run: Path, folder: Path) -> None:
    report = unveil.evaluate(run, data=folder, by="retrieval", device="cpu", workers=0, quiet=True)
    assert (report.metrics["samples"], report.metrics["texts"]) == (16, 32)
    assert report.metrics["image_to_text_r10"] > report.metrics["image_to_text_r1"] - 1e-9
    assert (run / "evaluate" / "retrieval.csv").read_text().startswith("path,index,caption,rank")


def test_questions_that_cannot_be_asked(run: Path, folder: Path, tmp_path: Path) -> None:
    index = unveil.embed(run, data=folder, out=tmp_path / "mean", pool="mean", device="cpu", quiet=True)
    with pytest.raises(UserError, match="no such file; the query of a search is one file"):
        unveil.search(index, "a red square", device="cpu", quiet=True)
    with pytest.raises(UserError, match="no such file"):
        unveil.search(index, "absent.png", device="cpu", quiet=True)
    with pytest.raises(UserError, match="--pool shared"):
        unveil.embed(run, data=folder, out=tmp_path / "x", pool="shared", layer=1, device="cpu", quiet=True)
    with pytest.raises(UserError, match="zero-shot"):
        unveil.evaluate(run, data=folder, by="knn", classes="x.txt", device="cpu", quiet=True)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.png").write_bytes(picture("red", 0))
    with pytest.raises(UserError, match="has a caption"):
        unveil.evaluate(run, data=tmp_path / "bare", by="retrieval", device="cpu", workers=0, quiet=True)
    mae = unveil.pretrain(
        "mae", data=folder, out=tmp_path / "mae", max_steps=0, size="debug", crop=16, patch=8, device="cpu", quiet=True
    )
    with pytest.raises(UserError, match="knows texts"):
        unveil.evaluate(mae, data=folder, by="retrieval", device="cpu", workers=0, quiet=True)


def test_a_run_that_is_stopped_goes_on_bit_for_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its tokenizer: it is read from the folder, not trained again."""
    whole = unveil.pretrain("flip", data=folder, out=tmp_path / "whole", max_steps=6, text_ratio=0.5, **SMALL)
    from unveil.data import bpe
    from unveil.objectives import TwoTower

    steps = []
    original = TwoTower.after_step

    def interrupt(self: TwoTower, progress: float) -> None:
        original(self, progress)
        steps.append(progress)
        if len(steps) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(TwoTower, "after_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unveil.pretrain(
            "flip", data=folder, out=tmp_path / "cut", max_steps=6, text_ratio=0.5, checkpoint_every=0, **SMALL
        )
    monkeypatch.setattr(TwoTower, "after_step", original)
    monkeypatch.setattr(bpe, "train", None)
    cut = unveil.pretrain(
        "flip", data=folder, out=tmp_path / "cut", max_steps=6, text_ratio=0.5, checkpoint_every=0, **SMALL
    )
    states = [load_file(run.path / "weights.safetensors") for run in (whole, cut)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_unmasked_phase_reads_texts_as_before(run: Path, tmp_path: Path) -> None:
    """Other captions, but the same tokenizer: ids keep their meaning."""
    shards = write_shards(tmp_path / "shards", 8)
    tuned = unveil.pretrain(
        "flip", data=shards, out=tmp_path / "tuned", start=run, preset="tune", max_steps=2, val_fraction=0,
        **{k: v for k, v in SMALL.items() if k not in ("optimizer.lr", "vocabulary")},
    )  # fmt: skip
    assert tuned.info["flags"]["ratio"] == 0
    assert tuned.recipe.optimizer.lr == 4e-8
    assert (tmp_path / "tuned" / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()
    assert tuned.log()[0]["loss"] < 3


def test_an_image_tower_is_fine_tuned(run: Path, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        for seed in range(4):
            (tmp_path / colour).mkdir(exist_ok=True)
            (tmp_path / colour / f"{seed}.png").write_bytes(picture(colour, seed))
    tuned = unveil.finetune(
        run, data=tmp_path, out=tmp_path / "ft", max_steps=0, device="cpu", quiet=True, **{"loader.workers": 0}
    )
    theirs, ours = unveil.load(run).objective.state_dict(), tuned.objective.state_dict()
    assert all(
        torch.equal(value, theirs[f"image.{name[8:]}"]) for name, value in ours.items() if name.startswith("encoder.")
    )


def test_pictures_without_captions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for seed in range(2):
        (tmp_path / "d" / f"{seed}.png").write_bytes(picture("red", seed))
    with pytest.raises(UserError, match=r"captions\.csv"):
        unveil.pretrain("clip", data=tmp_path / "d", out=tmp_path / "o", max_steps=1, **SMALL)
    assert not (tmp_path / "o" / "run.json").exists()


def test_a_tokenizer_by_path_decides_the_vocabulary(run: Path, folder: Path, tmp_path: Path) -> None:
    flags = {k: v for k, v in SMALL.items() if k != "vocabulary"}
    other = unveil.pretrain(
        "clip", data=folder, out=tmp_path / "o", max_steps=0, tokenizer=str(run / "tokenizer.json"), **flags
    )
    assert other.info["flags"]["vocabulary"] == unveil.load(run).info["flags"]["vocabulary"]
    with pytest.raises(UserError, match="--vocabulary 300: the tokenizer"):
        unveil.pretrain(
            "clip", data=folder, out=tmp_path / "p", max_steps=0, tokenizer=str(run / "tokenizer.json"), **SMALL
        )
