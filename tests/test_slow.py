"""What takes long: compiled blocks, the published small preset on a CPU, the demo's claim at a smaller scale."""

import numpy as np
import pytest
import torch
from media import write_video

import unveil

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    for i in range(8):
        rng = np.random.default_rng(i)
        video = torch.from_numpy(rng.integers(0, 255, (32, 64, 80, 3), dtype=np.uint8))
        path = tmp_path / "clips" / "ab"[i % 2] / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, video, fps=16)
    return tmp_path / "clips"


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_blocks_give_the_same_losses(folder, tmp_path):
    flags = {"size": "debug", "frames": 4, "stride": 1, "crop": 32, "patch": 8, "max_steps": 3, "quiet": True}
    flags |= {"schedule.batch": 4, "loader.workers": 0, "data": folder}
    plain = unveil.pretrain("videomae", out=tmp_path / "plain", **flags)
    compiled = unveil.pretrain("videomae", out=tmp_path / "compiled", compile=True, **flags)
    losses = [[line["loss"] for line in run.log()] for run in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("recipe", ["videomae", "mae_st"])
def test_the_small_preset_runs_on_a_cpu(folder, tmp_path, recipe):
    run = unveil.pretrain(recipe, data=folder, out=tmp_path / "a", preset="small", max_steps=1, quiet=True)
    tuned = unveil.finetune(
        run.path, data=folder, out=tmp_path / "b", preset="small", max_steps=1, val_fraction=0.25, quiet=True
    )
    assert tuned.predict(folder / "a" / "0.mp4")[0]["top"]


def test_pre_training_lowers_the_loss_on_real_clips(tmp_path):
    from unveil import verbs

    verbs.builtin("moving-digits", out=tmp_path / "clips", unlabelled=160, labelled=8, test=8)
    run = unveil.pretrain(
        "videomae", data=tmp_path / "clips" / "unlabelled", out=tmp_path / "a", preset="demo", normalize=None,
        max_steps=300, quiet=True,
    )  # fmt: skip
    losses = [line["loss"] for line in run.log()]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
