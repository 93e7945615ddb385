"""Published checkpoints of MoCo, MoCo v3 and SimSiam become runs: whichever wrapper, with whatever they lack."""

from pathlib import Path
from typing import Any

import pytest
import torch

from golden.reference import read, state_of  # pyright: ignore[reportMissingImports]
from unveil import weights
from unveil.errors import UserError
from unveil.verbs import import_

FILES = {
    "moco-v1": ("moco", {"size": "1,1,1,1", "mlp": False, "dim": 32, "queue": 16}),
    "moco-v2-mlp": ("moco", {"size": "1,1,1,1_basic", "mlp": True, "augment": "v2", "temperature": 0.2}),
    "mocov3-resnet": ("mocov3", {"size": "R1,1,1,1", "hidden": 48, "dim": 32}),
    "mocov3-vit": ("mocov3", {"size": "64x2x1", "patch": 8}),
    "mocov3-vit-convstem": ("mocov3", {"size": "64x3x1", "conv_stem": True}),
    "simsiam-resnet": ("simsiam", {"size": "1,1,1,1", "dim": 64, "hidden": 16}),
}


def published(name: str) -> dict[str, torch.Tensor]:
    """As the authors' files have it: behind DistributedDataParallel's prefix."""
    return {f"module.{key}": value for key, value in state_of(read(name)).items()}


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_becomes_a_run(name: str, tmp_path: Path) -> None:
    system, flags = FILES[name]
    torch.save({"epoch": 3, "state_dict": published(name)}, tmp_path / "theirs.pth")
    extra: dict[str, Any] = {"crop": 64} if "vit" in name else {}
    run = import_(tmp_path / "theirs.pth", recipe=system, out=tmp_path / "run", quiet=True, **extra)
    assert run.info["recipe"] == system
    assert run.info["flags"].items() >= flags.items()
    assert run.encoder.width in (64, 512, 2048)
    assert "facebookresearch" in run.info["licence_of_start"]


def test_the_queue_goes_on_where_it_was() -> None:
    state = published("moco-v1") | {"module.queue_ptr": torch.tensor([5])}
    queue: Any = weights.load("moco", state).objective.get_submodule("queue")
    assert int(queue.count) % queue.size == 5
    assert queue.filled == 1
    torch.testing.assert_close(queue.keys, state["module.queue"].T)


def test_an_encoder_alone_has_keys_of_the_same_weights() -> None:
    state = {key: value for key, value in published("moco-v1").items() if "encoder_q" in key}
    with pytest.warns(UserWarning, match="new, as initialised"):
        objective: Any = weights.load("moco", state).objective
    for copy, original in zip(objective.momentum.encoder.parameters(), objective.encoder.parameters(), strict=True):
        assert torch.equal(copy, original)


def test_the_transformer_of_the_linear_probe() -> None:
    """Named as timm's, with twelve heads and positions that begin with the row."""
    given = state_of(read("mocov3-vit"))
    names = {
        key.removeprefix("base_encoder."): value for key, value in given.items() if key.startswith("base_encoder.")
    }
    state = {key: value for key, value in names.items() if not key.startswith("head.")}
    state |= {"pos_embed": torch.randn(1, 17, 64), "head.weight": torch.randn(5, 64), "head.bias": torch.zeros(5)}
    recipe = weights.load("mocov3", state, num_heads=4)
    objective: Any = recipe.objective
    assert objective.logits({"image": torch.randn(2, 3, 32, 32)}).shape == (2, 5)
    torch.testing.assert_close(objective.encoder.positions.table.detach(), state["pos_embed"][0, 1:])


def test_heads_of_the_published_sizes() -> None:
    state = {"cls_token": torch.zeros(1, 1, 384), "pos_embed": torch.zeros(1, 197, 384)}
    state["patch_embed.proj.weight"] = torch.zeros(384, 3, 16, 16)
    state |= {f"blocks.{i}.norm1.weight": torch.ones(384) for i in range(12)}
    assert weights.convert("mocov3", state).flags["size"] == "S"
    stem = {key: value for key, value in state.items() if "patch" not in key and "blocks.11" not in key}
    stem["patch_embed.proj.12.weight"] = torch.zeros(384, 384, 1, 1)
    converted = weights.convert("mocov3", stem)
    assert (converted.flags["size"], converted.flags["conv_stem"], converted.flags["crop"]) == ("S", True, 224)


@pytest.mark.parametrize(
    ("name", "other"), [("simsiam-resnet", "moco"), ("moco-v1", "simsiam"), ("mocov3-vit", "moco")]
)
def test_another_systems_file_is_named(name: str, other: str) -> None:
    with pytest.raises(UserError, match=FILES[name][0]):
        weights.convert(other, published(name))
