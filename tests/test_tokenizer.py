"""A tokenizer is trained without labels; BEiT predicts its codes, and goes on without the tokenizer's folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unveil
from unveil.errors import UserError
from unveil.run import Run

FAST: dict[str, Any] = {"loader.workers": 0, "schedule.batch": 4, "loader.batch": 2, "quiet": True, "device": "cpu"}
TOKENIZER: dict[str, Any] = {"size": "debug", "vocab": 32, "crop": 32, "max_steps": 2, **FAST}
BEIT: dict[str, Any] = {"size": "debug", "crop": 32, "patch": 8, "max_steps": 3, **FAST}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def tokenizer(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return unveil.train("dvae", data=images, out=tmp_path_factory.mktemp("tokenizer") / "run", **TOKENIZER)


def copied(run: Run, to: Path) -> Path:
    return Path(shutil.copytree(run.path, to))


def test_a_tokenizer_is_trained_without_labels(tokenizer: Run, images: Path, tmp_path: Path) -> None:
    assert tokenizer.info["verb"] == "train"
    assert tokenizer.classes == []
    last = tokenizer.log()[-1]
    assert {"loss", "reconstruction", "kl", "temperature", "perplexity", "codes_used", "rankme"} <= last.keys()
    assert 1 <= last["perplexity"] <= 32
    assert np.isfinite(tokenizer.embed(sorted(images.glob("*.png")))).all()
    same = unveil.pretrain("dvae", data=images, out=tmp_path / "same", **TOKENIZER)
    assert all(
        torch.equal(x, same.objective.state_dict()[name]) for name, x in tokenizer.objective.state_dict().items()
    )
    with pytest.raises(UserError, match="learns without labels"):
        unveil.finetune(tokenizer.path, data=images, out=tmp_path / "tuned")


def test_a_report_shows_the_code_book(tokenizer: Run) -> None:
    page = unveil.report(tokenizer, quiet=True).read_text()
    assert "<h2>Code book</h2>" in page
    assert "Of 32 codes" in page
    assert "<span>input</span><span>predicted</span>" in page
    assert "<b>Code book: perplexity" in page


def test_beit_predicts_its_codes_and_needs_its_folder_no_more(
    tokenizer: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = copied(tokenizer, tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)  # the folder may be named as it stands from there
    run = unveil.pretrain("beit", data=images, out=tmp_path / "beit", tokenizer="tokenizer", **BEIT)
    assert run.info["asked"]["flags"]["tokenizer"] == "tokenizer"
    flags = run.info["flags"]
    assert (flags["tokenizer"], flags["tokenizer_size"], flags["vocab"]) == (str(theirs), "debug", 32)
    shutil.rmtree(theirs)
    opened = unveil.load(run.path, device="cpu")
    wanted = {
        f"target.{name}": x for name, x in tokenizer.objective.state_dict().items() if name.startswith("tokenizer.")
    }
    own = opened.objective.state_dict()
    assert wanted
    for name, value in wanted.items():
        assert torch.equal(own[name], value), name
    assert np.isfinite(opened.embed(sorted(images.glob("*.png")))).all()
    assert unveil.report(opened, quiet=True).is_file()
    unveil.export(opened, format="safetensors", part="encoder", out=tmp_path / "encoder.safetensors", quiet=True)
    assert not any("tokenizer" in name for name in load_file(tmp_path / "encoder.safetensors"))


def test_a_run_that_was_stopped_goes_on_without_the_tokenizer_bit_for_bit(
    tokenizer: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unveil.training import loop

    flags = {**BEIT, "checkpoint_every": 0, "tokenizer": str(copied(tokenizer, tmp_path / "tokenizer"))}
    whole = unveil.pretrain("beit", data=images, out=tmp_path / "whole", **flags)
    steps = iter([None, KeyError("killed")])
    real = loop.learning_rate

    def killed(*args: Any) -> float:
        if (error := next(steps, None)) is not None:
            raise error
        return real(*args)

    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(KeyError, match="killed"):
        unveil.pretrain("beit", data=images, out=tmp_path / "stopped", **flags)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "tokenizer")
    resumed = unveil.pretrain("beit", data=images, out=tmp_path / "stopped", **flags)
    assert resumed.info["status"] == "complete"
    for name, value in whole.objective.state_dict().items():
        assert torch.equal(resumed.objective.state_dict()[name], value), name


def test_a_run_that_has_not_begun_needs_the_tokenizer(tokenizer: Run, images: Path, tmp_path: Path) -> None:
    """Gone between the run folder's making and its first checkpoint, it is not replaced by random codes."""
    from unveil.training import loop

    theirs = copied(tokenizer, tmp_path / "tokenizer")
    flags = {**BEIT, "tokenizer": str(theirs)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plan_steps", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            unveil.pretrain("beit", data=images, out=tmp_path / "run", **flags)
    shutil.rmtree(theirs)
    with pytest.raises(UserError, match="tokenizer does not exist"):
        unveil.pretrain("beit", data=images, out=tmp_path / "run", **flags)


def test_fine_tuning_begins_with_the_shared_bias_in_each_block(tokenizer: Run, images: Path, tmp_path: Path) -> None:
    flags = {**BEIT, "optimizer.lr": 1.0, "tokenizer": str(tokenizer.path)}
    run = unveil.pretrain("beit", data=images, out=tmp_path / "beit", **flags)
    labelled = tmp_path / "labelled"
    for number, path in enumerate(sorted(images.glob("*.png"))):
        (labelled / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, labelled / f"class{number % 2}")
    tuned = unveil.finetune(run.path, data=labelled, out=tmp_path / "tuned", val_fraction=0, **FAST, max_steps=0)
    assert "tokenizer" not in tuned.info["flags"]
    shared = run.objective.get_parameter("encoder.attention_bias.table")
    assert shared.abs().max() > 0
    for number in range(2):
        assert torch.equal(tuned.objective.get_parameter(f"encoder.attention_bias.{number}.table"), shared)


def test_what_is_no_tokenizer_is_said(tokenizer: Run, images: Path, tmp_path: Path) -> None:
    def beit(**flags: Any) -> None:
        unveil.pretrain("beit", data=images, out=tmp_path / "beit", **{**BEIT, **flags})

    with pytest.raises(UserError, match=r"name its run with --tokenizer\. `unveil train dvae"):
        beit()
    with pytest.raises(UserError, match=r"--tokenizer .*nothing does not exist"):
        beit(tokenizer=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="--vocab 16: the tokenizer's is 32; leave the flag out"):
        beit(tokenizer=str(tokenizer.path), vocab=16)
    with pytest.raises(UserError, match=r"--patch|cannot be cut"):
        beit(tokenizer=str(tokenizer.path), patch=7)
    other = unveil.pretrain("mae", data=images, out=tmp_path / "mae", size="debug", crop=32, max_steps=0, **FAST)
    with pytest.raises(UserError, match="a run of mae, which gives images no codes"):
        beit(tokenizer=str(other.path))
    empty = copied(tokenizer, tmp_path / "empty")
    (empty / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights yet"):
        beit(tokenizer=str(empty))
    strange = copied(tokenizer, tmp_path / "strange")
    info = json.loads((strange / "run.json").read_text())
    info["flags"]["sample.mean"] = [0.5, 0.5, 0.5]
    (strange / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"trained with --sample\.mean"):
        beit(tokenizer=str(strange))
    assert not (tmp_path / "beit").exists()
    del info["flags"]["sample.mean"]
    info["flags"]["size"] = "nano"
    (strange / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="its weights do not fit here"):
        beit(tokenizer=str(strange))
