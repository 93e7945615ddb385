"""Agreement: who asks whom, what learns, what follows, what is remembered; alike in any number of processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

import kit
import unveil
from unveil.heads import Projector
from unveil.layers import Queue, norm_of
from unveil.losses import contrast, contrast_with, negative_cosine
from unveil.objectives import Agreement, directions, spread
from unveil.training import processes

SMALL = {"size": "debug", "crop": 32}


def tiny(name: str, **flags: Any) -> Any:
    torch.manual_seed(0)
    small = SMALL if name != "mocov3" or "R" in flags.get("size", "") else {**SMALL, "patch": 8}
    return unveil.build(name, **{**small, **flags}).objective.train()


def views(count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(count, 2, 3, 32, 32, generator=generator),
        "seed": torch.randint(2**62, (count,), generator=generator),
    }


SYSTEMS = [
    ("moco", {}),
    ("moco", {"mlp": True, "groups": 1}),
    ("mocov3", {}),
    ("mocov3", {"conv_stem": True, "patch": 16}),
    ("mocov3", {"size": "R1,1,1,1", "hidden": 16, "dim": 8}),
    ("simsiam", {}),
]


@pytest.mark.parametrize(("name", "flags"), SYSTEMS)
def test_a_step_on_images(name: str, flags: dict[str, Any]) -> None:
    objective = tiny(name, **flags)
    before = {key: value.clone() for key, value in objective.named_parameters()}
    learned = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.1)
    for step in range(2):
        objective.before_step(step / 2)
        answer = objective(views(seed=step))
        answer["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step((step + 1) / 2)
    moved = {key for key, value in objective.named_parameters() if not torch.equal(value, before[key])}
    still = set(before) - moved
    # Momentum copies have moved in the second step; what is frozen has not, nor a bias that a norm takes away.
    assert all(not objective.get_parameter(key).requires_grad for key in still)
    assert any(key.startswith("momentum.encoder.") for key in moved) == (objective.momentum is not None)


def test_no_gradient_reaches_keys() -> None:
    objective = tiny("simsiam")
    *_, keys = objective.features(views())
    assert not any(key.requires_grad for key in keys)
    *_, keys = tiny("simsiam", stop_gradient=False).features(views())
    assert all(key.requires_grad for key in keys)
    *_, keys = tiny("mocov3").features(views())
    assert not any(key.requires_grad for key in keys)


def test_each_view_asks_the_other() -> None:
    objective = tiny("simsiam").eval()
    batch = views()
    (z1, z2), (p1, p2), _ = objective.features(batch)
    expected = 0.5 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))
    torch.testing.assert_close(objective(batch)["loss"], expected)
    swapped = batch | {"image": batch["image"].flip(1)}
    torch.testing.assert_close(objective(swapped)["loss"], expected)
    moco = tiny("moco").eval()
    assert moco(swapped)["loss"] != moco(batch)["loss"]  # only the first view asks


def test_the_momentum_encoder_moves_before_the_first_pass_of_a_step() -> None:
    objective = tiny("moco", momentum=0.5)
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter.add_(1.0)
    name = "encoder.stem.0.conv.weight"
    old = objective.momentum.get_parameter(name).clone()
    objective(views())
    assert torch.equal(objective.momentum.get_parameter(name), old)  # not in the pass itself: a step may have several
    objective.before_step(0.0)
    torch.testing.assert_close(objective.momentum.get_parameter(name), old + 0.5)


def test_the_queue_is_asked_before_it_gets_the_steps_keys() -> None:
    objective = tiny("moco", queue=16, groups=1)
    before = objective.queue.keys.clone()
    for part in (slice(0, 2), slice(2, 6)):  # two micro-batches
        objective({key: value[part] for key, value in views().items()})
        assert torch.equal(objective.queue.keys, before)
    objective.after_step(0.1)
    assert int(objective.queue.count) == 6
    assert torch.equal(objective.queue.keys[6:], before[6:])
    keys = [objective.features({k: v[part] for k, v in views().items()})[2][0] for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(objective.queue.keys[:6], nn.functional.normalize(torch.cat(keys), dim=1))
    objective.after_step(0.2)
    assert int(objective.queue.count) == 6
    with torch.no_grad():  # what is only looked at is not remembered
        objective(views())
    objective.eval()(views())
    objective.after_step(0.3)
    assert int(objective.queue.count) == 6


def test_keys_are_shuffled_by_the_samples_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = tiny("moco", groups=2)
    seen: list[torch.Tensor] = []
    objective.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, 0, 0, 0]))
    objective.momentum.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, 0, 0, 0]))
    batch = views()
    objective(batch)
    first, second = batch["image"][:, :, 0, 0, 0].unbind(1)
    order = batch["seed"].argsort()
    assert [part.tolist() for part in seen[:2]] == [first[:3].tolist(), first[3:].tolist()]
    assert [part.tolist() for part in seen[2:]] == [second[order][:3].tolist(), second[order][3:].tolist()]


def test_weights_of_another_run_are_the_keys_too(tmp_path: Path) -> None:
    """An encoder alone is started from: the momentum encoder begins with its weights."""
    from safetensors.torch import save_file

    from unveil.training.start import start

    torch.manual_seed(7)
    source = {f"encoder.{key}": value + 1 for key, value in tiny("moco").encoder.state_dict().items()}
    save_file(source, tmp_path / "encoder.safetensors")
    objective = tiny("moco")
    start(objective, tmp_path / "encoder.safetensors")
    name = "stem.0.conv.weight"
    assert torch.equal(objective.momentum.encoder.get_parameter(name), source[f"encoder.{name}"])


def test_a_frozen_embedding_of_patches() -> None:
    assert not tiny("mocov3").encoder.embed.weight.requires_grad
    assert tiny("mocov3", freeze_patches=False).encoder.embed.weight.requires_grad
    assert tiny("mocov3", conv_stem=True, patch=16).encoder.patchify.proj.weight.requires_grad


def test_spread() -> None:
    torch.manual_seed(0)
    assert spread(nn.functional.normalize(torch.randn(500, 64), dim=1)).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(5, 8) / 8**0.5).item() == 0


def test_directions() -> None:
    torch.manual_seed(0)
    normalize = nn.functional.normalize
    assert directions(normalize(torch.randn(500, 16), dim=1)).item() == pytest.approx(16, rel=0.1)
    line = torch.ones(32, 8) / 8**0.5
    line[0] *= -1  # as a batch norm leaves it: all at one end, but for one
    assert spread(line).item() > 0.3
    assert directions(line).item() == pytest.approx(1)
    near = normalize(torch.ones(64, 16) + 0.2 * torch.randn(64, 16), dim=1)  # an untrained network's
    assert spread(near) < 0.3
    assert directions(near).item() > 8
    assert directions(torch.ones(5, 8) / 8**0.5).item() == pytest.approx(0, abs=1e-6)


def test_one_view_cannot_ask_alone_without_a_momentum_encoder() -> None:
    encoder = tiny("simsiam").encoder
    with pytest.raises(ValueError, match="may as well both ask"):
        Agreement("image", encoder, Projector(encoder.width, [4]), negative_cosine, symmetric=False)


# ── Several processes ────────────────────────────────────────────────────────────────────────────────────────────────────

CASES = {
    "mocov3": {"norm": "group"},
    "mocov3 of a residual network": {"norm": "group", "size": "R1,1,1,1", "hidden": 16, "dim": 8},
    "moco": {"norm": "group", "queue": 16, "groups": 1, "mlp": True},
    "simsiam": {"norm": "group"},
}


def steps(case: str, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Two steps with this process's share of the batch, put together as the training loop does it: losses, weights, queue."""
    objective = tiny(case.split()[0], **CASES[case])
    learned = {key: value for key, value in objective.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(learned.values(), lr=0.1)
    found = {}
    for step in range(2):
        batch = views(7, seed=step)  # of which one process has a sample more than the other
        low, high = (7 * r // world for r in (rank, rank + 1))
        objective.before_step(step / 2)
        loss = objective({key: value[low:high] for key, value in batch.items()})["loss"]
        (loss * ((high - low) / 7 * world)).backward()
        numbers = {"loss": loss.detach() * (high - low) / 7}
        numbers |= {f"gradient of {key}": torch.as_tensor(value.grad) / world for key, value in learned.items()}
        for number in numbers.values() if world > 1 else ():
            distributed.all_reduce(number)
        for key, value in learned.items():
            value.grad = numbers[f"gradient of {key}"].clone()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step((step + 1) / 2)
        found |= {f"{step}: {key}": value for key, value in numbers.items()}
    return found | {key: value.clone() for key, value in objective.state_dict().items()}


def of_one_process(folder: Path) -> None:
    processes.join(torch.device("cpu"))
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for case in CASES:
        found = steps(case, rank, world)
        torch.save(found, folder / f"{case}-{rank}.pt")


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Losses, gradients, momentum encoders and queues of two steps; without batch norm."""
    processes.start(of_one_process, tmp_path, 2)
    for case in CASES:
        one = steps(case, 0, 1)
        for rank in (0, 1):
            two = torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=True)
            assert two.keys() == one.keys()
            for key, value in one.items():
                assert torch.allclose(two[key], value, atol=2e-5, rtol=1e-4), f"{case}: {key}"


def test_clips() -> None:
    recipe = unveil.build("moco", size="debug", frames=4, crop=32)
    objective: Any = recipe.objective
    assert objective.key == "video"
    assert objective(kit.batch_for(objective))["loss"].isfinite()
    assert len(recipe.data.views) == 1


def test_losses_of_the_recipes() -> None:
    assert tiny("moco").loss.func is contrast_with
    assert tiny("mocov3").loss.func is contrast
    assert tiny("mocov3", temperature=0.5).weight == 1.0
    assert isinstance(tiny("moco").queue, Queue)
    assert norm_of("group", axes=1)(64).num_groups == 1
