"""Batch norm in training: precise statistics, exact resumption, several processes, averages, steps that are not finite."""

import json
import shutil

import pytest
import torch
from media import numbered_frames, write_video
from safetensors.torch import load_file
from torch import nn

import unveil
from unveil.data import Image
from unveil.errors import UserError
from unveil.layers import folded
from unveil.recipe import Data
from unveil.training import checkpoint, loop, processes, statistics

FLAGS = {
    "size": "debug", "crop": 32, "frames": 8, "stride": 1, "schedule.batch": 6, "loader.batch": 3, "loader.workers": 0,
    "optimizer.nesterov": True, "precise_bn": 2, "quiet": True, "device": "cpu", "seed": 3, "checkpoint_every": 0,
}  # fmt: skip
STEPS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(16):
        path = folder / "ab"[number % 2] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, numbered_frames(10, 40, 56, seed=number), fps=8)
    return folder


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A run of s3dg that was never stopped, with an average of its weights."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return unveil.train("s3dg", data=clips, out=out, max_steps=STEPS, keep=STEPS, ema=0.5, **FLAGS)


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_was_killed_goes_on_bit_for_bit(whole, clips, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(whole.path, out)
    for path in checkpoint.files(out)[:2]:
        path.unlink()
    (out / "weights.safetensors").unlink()
    info = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**info, "status": "running"}))
    again = unveil.train("s3dg", data=clips, out=out, max_steps=STEPS, keep=STEPS, ema=0.5, **FLAGS)
    assert [line["loss"] for line in again.log()] == [line["loss"] for line in whole.log()]
    assert same(load_file(whole.path / "weights.safetensors"), load_file(out / "weights.safetensors"))
    old, new = (torch.load(checkpoint.files(path)[0], weights_only=True) for path in (whole.path, out))
    assert old["step"] == new["step"] == STEPS
    for part in ("objective", "average"):
        assert same(old[part], new[part])
    moments = [[s["momentum_buffer"] for s in state["optimizer"]["state"].values()] for state in (old, new)]
    assert moments[0]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_averaged_weights_have_statistics_of_their_own(whole):
    state = torch.load(checkpoint.files(whole.path)[0], weights_only=True)
    name = "encoder.stem.conv3.0.norm"
    assert state["objective"][f"{name}.num_batches_tracked"] == 2 * STEPS, "a micro-batch counts once"
    assert state["average"][f"{name}.num_batches_tracked"] == 2 * STEPS
    for part in ("running_mean", "running_var"):
        assert not torch.allclose(state["average"][f"{name}.{part}"], state["objective"][f"{name}.{part}"], rtol=1e-3)


class Counted:
    """Enough of Lightning's Fabric for one process."""

    world_size = 1

    @staticmethod
    def to_device(x):
        return x


def test_precise_statistics_are_the_populations():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    network = nn.Sequential(conv, nn.BatchNorm2d(4), nn.Dropout(0.9), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    frozen = network[5]
    frozen.train = lambda mode=True: nn.Module.train(frozen, False)
    before = frozen.running_mean.clone()

    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, batch):
            return self.network(batch["image"])

    batches = [{"image": torch.randn(2 + n, 3, 8, 8) * (1 + n), "bad": []} for n in range(4)]
    objective = Objective().train()
    steps = (batches[i : i + 2] for i in range(0, 100, 2))
    statistics.renew(Counted(), objective, Data(Image()), steps, 2)
    with torch.no_grad():
        values = torch.cat([conv(batch["image"]).transpose(0, 1).flatten(1) for batch in batches], 1)
    torch.testing.assert_close(network[1].running_mean, values.mean(1))
    torch.testing.assert_close(network[1].running_var, values.var(1, correction=0))
    assert torch.equal(frozen.running_mean, before)
    assert network[1].num_batches_tracked == 0
    assert network[1].training
    assert network[2].training


def test_evaluation_uses_precise_statistics(clips, tmp_path):
    """The moving averages of a few steps at 0.001 are still about those of no step at all."""
    scores = {}
    flags = {**FLAGS, "optimizer.lr": 2.0, "optimizer.nesterov": False, "dropout": 0.0, "val_fraction": 0}
    for precise in (0, 2):
        run = unveil.train(
            "s3d", data=clips, out=tmp_path / f"{precise}", max_steps=3, **{**flags, "precise_bn": precise}
        )
        encoder = run.objective.encoder
        scores[precise] = float(encoder.stem.conv3[0].norm.running_var.max())
        x = torch.randn(2, 3, 8, 32, 32)
        expected = encoder(x).x.detach()
        torch.testing.assert_close(
            folded(encoder, x)(x).x, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )
    assert scores[0] < 1.5
    assert scores[2] > 5 * scores[0]


def test_the_log_says_what_batch_norm_sees():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert statistics.told(nn.Linear(2, 2), 4, 1, False) == []
    assert statistics.told(network, 4, 1, True) == ["1 batch norms: statistics of 4 samples at a time (--loader.batch)"]
    assert "over 2 processes" in statistics.told(network, 4, 2, True)[0]
    assert "--sync-batch-norm true" in statistics.told(network, 4, 2, False)[0]


def train_all(plans):
    for plan in plans:
        loop._train(plan)


def plans(clips, folder, monkeypatch, ways):
    found = []
    monkeypatch.setattr("unveil.training.fit", found.append)
    for way in ways:
        unveil.train(
            "s3d",
            data=clips,
            out=folder / way,
            max_steps=1,
            devices=2,
            strategy=way,
            **{**FLAGS, "ema": 0.5, "precise_bn": 1},
        )
    monkeypatch.undo()
    return found


def test_two_processes_share_precise_statistics(clips, tmp_path, monkeypatch):
    """DDP and FSDP2 see the same micro-batches, process by process: they learn the same, and save what one can go on from."""
    processes.start(train_all, plans(clips, tmp_path, monkeypatch, ("ddp", "fsdp")), 2)
    ddp, fsdp = (load_file(tmp_path / way / "weights.safetensors") for way in ("ddp", "fsdp"))
    assert ddp.keys() == fsdp.keys()
    for name, value in ddp.items():
        torch.testing.assert_close(fsdp[name], value, rtol=1e-3, atol=1e-4)
    losses = [[line["loss"] for line in unveil.load(tmp_path / way).log()] for way in ("ddp", "fsdp")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_common_statistics_need_gpus():
    class Fabric:
        world_size, device = 2, torch.device("cpu")

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match=r"--sync-batch-norm.*CUDA"):
        processes.synchronised(Fabric(), network)
    Fabric.world_size = 1
    processes.synchronised(Fabric(), network)
    assert type(network[1]) is nn.BatchNorm2d
    Fabric.world_size, Fabric.device = 2, torch.device("cuda")
    processes.synchronised(Fabric(), network)
    assert type(network[1]) is nn.SyncBatchNorm
    assert network.state_dict().keys() == nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict().keys()


def test_a_step_that_is_not_finite_is_kept_with_the_statistics_before_it(clips, tmp_path):
    """A learning rate beyond reason spoils the second step; its running statistics are not those that are kept."""
    flags = {**FLAGS, "optimizer.lr": 1e30, "precise_bn": 0, "val_fraction": 0}
    with pytest.raises(UserError, match="doctor"):
        unveil.train("s3dg", data=clips, out=tmp_path / "run", max_steps=8, **flags)
    kept = load_file(tmp_path / "run" / "nan" / "state.safetensors")
    info = json.loads((tmp_path / "run" / "nan" / "rank-0.json").read_text())
    counts = {int(value) for name, value in kept.items() if name.endswith("num_batches_tracked")}
    assert counts == {2 * (info["step"] - 1)}
    assert all(bool(value.isfinite().all()) for name, value in kept.items() if "running" in name)
