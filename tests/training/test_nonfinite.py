"""A loss that is not finite: the run stops, keeps the step, and `unveil doctor RUN` finds where it begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import unveil
from unveil import cli
from unveil.errors import UserError
from unveil.layers import seed_dropout
from unveil.run import Run
from unveil.training import checkpoint, nonfinite
from unveil.training.replay import replay

SIZES = {"size": "debug", "crop": 32, "patch": 8, "schedule.batch": 4, "loader.batch": 2, "loader.workers": 0}

OWN = '''
"""MAE with a trap in its decoder that goes off at one step."""
import torch
from torch import nn
from unveil.objectives import MaskedAutoencoder
from unveil.recipe import Recipe
from unveil.recipes.mae import mae

class Trap(nn.Module):
    armed = False

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = x * self.weight
        if not self.armed:
            return x
        if self.kind == "forward":
            return x / 0
        if self.kind == "backward":
            return x + (x * 0).sqrt()
        if self.kind == "norm":
            return x + 1e30 * (x - x.detach())
        if self.kind == "half":
            # What is left of 1.001 - 1 in bfloat16 is nothing.
            kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            left = torch.full_like(x, 1.001, dtype=kind) - 1
            return x + 1e-6 / left.float()
        raise AssertionError(self.kind)

class Trapped(MaskedAutoencoder):
    at, steps, total = 3, None, 6

    def before_step(self, progress):
        self.trap.armed = round(progress * self.total) + 1 == self.at

    def forward(self, batch, mask=None, state=None):
        answer = super().forward(batch, mask, state)
        if self.kind == "sample":
            nan = torch.where(batch["index"] == 5, torch.nan, 0.0).sum()
            answer["loss"] = answer["loss"] + nan
        if self.kind == "input":
            answer["loss"] = answer["loss"] + batch["image"].sum() * 0
        return answer

def trapped(kind: str = "forward", size: str = "debug", crop: int = 32, patch: int = 8) -> Recipe:
    recipe = mae(size, crop=crop, patch=patch)
    objective = recipe.objective
    objective.__class__ = Trapped
    objective.kind = kind
    objective.trap = Trap(kind)
    objective.decoder.head = nn.Sequential(objective.trap, objective.decoder.head)
    if kind == "input":
        recipe.data.std = (0.0, 0.0, 0.0)
    return recipe
'''


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        Image.effect_noise((48, 40), 20 + 10 * i).convert("RGB").save(folder / f"{i}.png")
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    # Modules are found by their name: each test needs its own.
    name = f"trapped_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return f"{tmp_path / name}.py:trapped"


def stopped(own: str, images: Path, out: Path, **flags) -> str:
    with pytest.raises(UserError) as error:
        unveil.pretrain(own, data=images, out=out, max_steps=6, quiet=True, device="cpu", **SIZES, **flags)
    return str(error.value)


def test_the_run_stops_keeps_the_step_and_the_replay_names_the_module(own, images, tmp_path, capsys):
    out = tmp_path / "run"
    text = stopped(own, images, out)
    assert "the loss is nan at step 3" in text
    assert f"unveil doctor {out}" in text
    assert [line["step"] for line in Run(out).log()] == [1, 2]
    assert not list(out.glob("nan/.*")), "temporary files are left"

    info = json.loads((out / "nan" / "rank-0.json").read_text())
    assert (info["step"], info["total_steps"], info["loss"], info["world"]) == (3, 6, "nan", 1)
    assert [micro["loss"] for micro in info["micro_batches"]] == ["nan", "nan"]
    kept = load_file(out / "nan" / "rank-0.safetensors")
    assert kept["0.image"].shape == (2, 3, 32, 32)
    for number, micro in enumerate(info["micro_batches"]):
        assert kept[f"{number}.seed"].tolist() == [sample["seed"] for sample in micro["samples"]]
        assert {Path(sample["path"]).parent for sample in micro["samples"]} == {images}
    with safe_open(out / "nan" / "state.safetensors", "pt") as state:
        weights = [state.get_tensor(name) for name in state.keys()]  # noqa: SIM118
        assert all(bool(x.isfinite().all()) for x in weights), "the state is that after the step"

    found = replay(Run(out, "cpu"))
    assert found.repeated
    assert (found.origin.module, found.origin.kind) == ("decoder.head.0", "Trap")
    assert any("inf of" in line for line in found.origin.values)
    assert (found.weights, found.inputs, found.files, found.notes, found.float32) == ([], [], [], [], None)
    assert any("--optimizer.lr" in line for line in found.advice)

    with pytest.raises(SystemExit) as stop:
        cli.run(["doctor", str(out), "--device", "cpu"])
    assert stop.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    for expected in ("step 3", "again it is not finite", "`decoder.head.0` (Trap)", "what to do"):
        assert expected in shown

    assert stopped(own, images, out) == text, "the same command meets the same step"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("backward", "the gradient of the result of `decoder.head.0` (Trap) is finite; next on the way back"),
        ("norm", "every gradient is finite, but their norm is inf"),
    ],
)
def test_gradients_that_are_not_finite_stop_the_run_too(own, images, tmp_path, kind, says):
    text = stopped(own, images, tmp_path / "run", kind=kind)
    assert "the gradient's norm is" in text
    assert "at step 3" in text
    found = replay(Run(tmp_path / "run", "cpu"))
    assert found.repeated
    assert found.origin is None
    assert says in " ".join(found.backward)


def test_half_precision_is_told_from_divergence(own, images, tmp_path):
    assert "the loss is" in stopped(own, images, tmp_path / "run", kind="half", precision="bf16")
    found = replay(Run(tmp_path / "run", "cpu"))
    assert (found.repeated, found.float32, found.origin.kind) == (True, True, "Trap")
    assert "--precision 32" in found.advice[0]


def test_the_file_whose_sample_is_enough_is_named(own, images, tmp_path):
    stopped(own, images, tmp_path / "run", kind="sample")
    found = replay(Run(tmp_path / "run", "cpu"))
    assert [Path(path).name for path in found.files] == ["5.png"]
    assert found.origin.module == ""
    assert "the objective (Trapped), after `decoder" in found.origin.where
    info = json.loads((tmp_path / "run" / "nan" / "rank-0.json").read_text())
    assert [micro["kept"] for micro in info["micro_batches"]].count(True) == 1, "only the micro-batch at fault is kept"
    assert any("Only these files" in line for line in found.advice)


def test_samples_that_are_not_finite_themselves_are_named(own, images, tmp_path):
    stopped(own, images, tmp_path / "run", kind="input")
    found = replay(Run(tmp_path / "run", "cpu"))
    assert len(found.inputs) == 4
    assert all(line.startswith(f"image of {images}") for line in found.inputs)
    assert "--sample.std" in found.advice[0]


def test_a_weight_that_was_infinite_before_is_named(images, tmp_path):
    flags = {"data": images, "out": tmp_path / "run", "max_steps": 4, "quiet": True, "device": "cpu", **SIZES}
    unveil.pretrain("mae", **flags)
    path = checkpoint.files(tmp_path / "run")[0]
    state = torch.load(path, weights_only=True)
    state["objective"]["encoder.blocks.1.mlp.fc1.weight"][0, 0] = torch.inf
    state["step"] = 2
    torch.save(state, path)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(info | {"status": "running"}))
    with pytest.raises(UserError, match="at step 3"):
        unveil.pretrain("mae", **flags)
    found = replay(Run(tmp_path / "run", "cpu"))
    assert found.weights == ["encoder.blocks.1.mlp.fc1.weight: 1 inf of 4096"]
    assert found.origin.module == "encoder.blocks.1.mlp.fc1"
    assert "checkpoints/" in " ".join(found.advice)


@pytest.mark.parametrize("recipe", ["vit", "videomae", "mae_st"])
def test_every_kind_of_objective_is_replayed(recipe, tmp_path):
    """With dropout, mixed labels and class weights: the replayed loss is the one recorded, digit for digit."""
    flags = {"crop": 32, "patch": 8, "frames": 4} | ({"num_classes": 3, "drop_path": 0.5} if recipe == "vit" else {})
    made = unveil.build(recipe, size="debug", **flags)
    objective = made.objective.train()
    if recipe == "vit":
        objective.weigh(torch.tensor([0.5, 1.0, 2.0]))
    key = made.data.signal.key
    chunk = {key: torch.randn(2, 3, 4, 32, 32), "index": torch.tensor([0, 1]), "seed": torch.tensor([7, 8])}
    chunk["label"] = torch.tensor([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
    torch.manual_seed(5)
    seed_dropout(objective, chunk["seed"])
    loss = objective(chunk)["loss"].item()
    step = nonfinite.Step(1, 1, 2, float("nan"), 1.0, 1e-3, [float("nan")], [5])
    manifest = unveil.data.Manifest.of([unveil.data.Row("/a.mp4"), unveil.data.Row("/b.mp4")])
    from unveil.run import new_info
    from unveil.storage import write_json

    write_json(tmp_path / "run.json", {**new_info("train", recipe, {"size": "debug", **flags}), "status": "running"})
    state = objective.state_dict()
    case = nonfinite.Case(step, [chunk], manifest, objective, state, "32-true", torch.device("cpu"))
    text = nonfinite.keep(tmp_path, case)
    assert "unveil doctor" in str(text)
    found = replay(Run(tmp_path, "cpu"))
    assert found.losses == [f"micro-batch 0 of process 0: {loss:.6g}"]
    assert not found.repeated
    assert "The replay is finite" in found.advice[0]


def test_a_full_disk_does_not_hide_the_loss(own, images, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    text = stopped(own, images, tmp_path / "run")
    assert "the loss is nan at step 3" in text
    assert "No space left on device" in text
    monkeypatch.undo()
    with pytest.raises(UserError, match="has kept no step"):
        replay(Run(tmp_path / "run", "cpu"))


def test_what_cannot_be_replayed_says_why(own, images, tmp_path):
    out = tmp_path / "run"
    stopped(own, images, out)
    with pytest.raises(UserError, match="does not exist"):
        cli.run(["doctor", str(tmp_path / "nothing")])
    state = out / "nan" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:100])
    with pytest.raises(UserError, match="cannot be read"):
        replay(Run(out, "cpu"))
    state.write_bytes(whole)
    info = json.loads((out / "nan" / "rank-0.json").read_text())
    (out / "nan" / "rank-0.json").write_text(json.dumps(info | {"step": 9}))
    with pytest.raises(UserError, match="another step"):
        replay(Run(out, "cpu"))
    (out / "nan" / "rank-0.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="cannot be read"):
        replay(Run(out, "cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_keep_their_parts_and_end_with_one_error(own, images, tmp_path, strategy):
    script = tmp_path / "go.py"
    flags = {
        "max_steps": 6,
        "quiet": True,
        "device": "cpu",
        "devices": 2,
        "strategy": strategy,
        **SIZES,
        "kind": "sample",
    }
    script.write_text(
        "import unveil, sys\n"
        "if __name__ == '__main__':\n"
        f"    try:\n        unveil.pretrain({own!r}, data={str(images)!r}, out={str(tmp_path / 'run')!r}, **{flags!r})\n"
        "    except unveil.UserError as error:\n        print(error)\n        sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=180, check=False)
    assert "the loss is nan" in done.stdout + done.stderr
    names = {path.name for path in (tmp_path / "run" / "nan").iterdir()}
    assert names == {"state.safetensors", *(f"rank-{i}.{kind}" for i in (0, 1) for kind in ("json", "safetensors"))}
    found = replay(Run(tmp_path / "run", "cpu"))
    assert [Path(path).name for path in found.files] == ["5.png"]
