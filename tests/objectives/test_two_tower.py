"""Two towers that agree: the loss, the scale, masks in training alone; and the same in several processes as in one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from two_processes import learn_what_one_learns
from unveil.flags import build
from unveil.objectives import TwoTower

SMALL = {"size": "debug", "crop": 32, "patch": 8, "context": 8, "vocabulary": 50}


def objective(name: str = "flip", seed: int = 0, **flags) -> TwoTower:
    torch.manual_seed(seed)
    made = build(name, **SMALL, **flags).objective
    assert isinstance(made, TwoTower)
    return made


def batch(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    text = torch.randint(1, 50, (rows, 8), generator=generator)
    text[: rows // 2, 5:] = 0
    return {
        "image": torch.randn(rows, 3, 32, 32, generator=generator),
        "text": text,
        "seed": torch.randint(2**62, (rows,), generator=generator),
    }


@pytest.mark.parametrize("name", ["clip", "flip"])
def test_the_loss_is_the_papers(name: str) -> None:
    network, given = objective(name, **({"ratio": 0.0} if name == "flip" else {})), batch(6)
    logits = network.logit_scale.exp() * network.embed("image", given["image"]) @ network.embed("text", given["text"]).T
    own = torch.arange(6)
    expected = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    answer = network(given)
    torch.testing.assert_close(answer["loss"], expected)
    assert answer["scale"].item() == pytest.approx(1 / 0.07)


def test_the_scale_stays_below_a_hundred() -> None:
    network = objective()
    with torch.no_grad():
        network.logit_scale.fill_(7.0)
    network.after_step(0.5)
    assert network.logit_scale.exp().item() == pytest.approx(100)
    with torch.no_grad():
        network.logit_scale.fill_(1.0)
    network.after_step(0.5)
    assert network.logit_scale.item() == 1.0


def test_masks_are_for_training_alone() -> None:
    network, given = objective(text_ratio=0.5), batch(4)
    masks = network.masked(given)
    assert masks["image"].visible.shape == (4, 8)
    assert masks["text"].visible.shape == (4, 4)
    assert torch.equal(network(given)["loss"], network(given, mask=masks)["loss"])
    assert not torch.equal(network(given)["loss"], network(given, mask={})["loss"])
    features = network.features("image", given["image"])
    torch.testing.assert_close(
        features, network.projections["image"](network.image.pool(network.image(given["image"])))
    )


def test_flip_without_masks_is_clip_of_its_towers() -> None:
    given = batch(4)
    masked, whole = objective(ratio=0.5), objective(ratio=0.0)
    assert whole.masked(given) == {}
    assert masked.state_dict().keys() == whole.state_dict().keys()
    torch.testing.assert_close(masked(given, mask={})["loss"], whole(given)["loss"])


def test_texts_are_masked_elsewhere_than_images() -> None:
    """From one seed two draws."""
    network = objective(text_ratio=0.5)
    given = batch(4)
    given["text"] = torch.ones(4, 8, dtype=torch.int64)
    first = network.masked(given)
    given["seed"] = given["seed"] + 1
    assert not torch.equal(first["text"].visible, network.masked(given)["text"].visible)


# ---- several processes


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Loss and every gradient, also where their batches are not of one size; masks are each sample's own."""
    learn_what_one_learns(objective, batch, tmp_path)


def test_the_first_scale() -> None:
    assert objective().logit_scale.item() == pytest.approx(math.log(1 / 0.07))
