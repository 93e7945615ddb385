"""Runs of what remembers: killed and resumed they are the same, bit for bit; and the log says what they hang on."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unveil
from unveil.training import checkpoint

TINY = {
    "size": "debug",
    "crop": 32,
    "max_steps": 6,
    "checkpoint_every": 0,
    "keep": 9,
    "device": "cpu",
    "loader.workers": 0,
}
TINY |= {"schedule.batch": 8, "loader.batch": 4}
SYSTEMS = [("moco", {"queue": 32}), ("mocov3", {"patch": 8, "loader.batch": 8}), ("simsiam", {})]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(16):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize(("name", "flags"), SYSTEMS)
def test_a_run_goes_on_bit_for_bit(name: str, flags: dict[str, Any], pictures: Any, tmp_path: Any) -> None:
    """The queue, the momentum encoder, running statistics: from the fourth step as if nothing had been."""
    whole: Any = unveil.pretrain(name, data=pictures, out=tmp_path / "run", quiet=True, **{**TINY, **flags})
    expected = load_file(whole.path / "weights.safetensors")
    log = [line["loss"] for line in whole.log()]
    for path in checkpoint.files(whole.path)[:3]:
        path.unlink()
    info = json.loads((whole.path / "run.json").read_text())
    (whole.path / "run.json").write_text(json.dumps({**info, "status": "running"}))
    again: Any = unveil.pretrain(name, data=pictures, out=tmp_path / "run", quiet=True, **{**TINY, **flags})
    assert [line["loss"] for line in again.log()] == log
    found = load_file(again.path / "weights.safetensors")
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    if name == "moco":
        assert int(found["queue.count"]) == 6 * 8
        assert again.log()[-1]["queue_filled"] == 1


def test_what_samples_are_told_from_is_said(pictures: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    unveil.pretrain("mocov3", data=pictures, out=tmp_path / "run", patch=8, **TINY)
    said = capsys.readouterr().err
    assert "each sample is told from the 3 others of its micro-batch" in said
    assert "batch norms: statistics of 4 samples at a time" in said


@pytest.mark.parametrize(("name", "flags"), [("mocov3", {"patch": 8}), ("simsiam", {})])
def test_the_encoder_is_fine_tuned(name: str, flags: dict[str, Any], pictures: Any, tmp_path: Any) -> None:
    few = {**TINY, "max_steps": 1, "quiet": True}
    run: Any = unveil.pretrain(name, data=pictures, out=tmp_path / "run", **few, **flags)
    tuned: Any = unveil.finetune(run.path, data=pictures, out=tmp_path / "tuned", **{**few, "max_steps": 0})
    before, after = (load_file(r.path / "weights.safetensors") for r in (run, tuned))
    same = [key for key in after if key.startswith("encoder.blocks.") and torch.equal(after[key], before[key])]
    assert same == [key for key in after if key.startswith("encoder.blocks.")]
    shutil.rmtree(tuned.path)
