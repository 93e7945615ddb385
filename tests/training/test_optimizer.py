"""Groups of parameters."""

import pytest
import torch

import unveil
from unveil.recipe import Optimizer
from unveil.training.optimizer import adamw, decays, groups, set_rate


@pytest.fixture
def objective():
    recipe = unveil.build("videomae:finetune", size="debug", crop=32, patch=8, frames=4, num_classes=3)
    return recipe.objective


def test_every_parameter_is_in_one_group(objective):
    found = [id(p) for group in groups(objective, Optimizer(layer_decay=0.5)) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in objective.parameters())


def test_layers_nearer_the_input_learn_slower(objective):
    names = {id(p): name for name, p in objective.named_parameters()}
    scale = {names[id(p)]: g["lr_scale"] for g in groups(objective, Optimizer(layer_decay=0.5)) for p in g["params"]}
    assert scale["encoder.embed.weight"] == 0.5**3
    assert {scale[n] for n in scale if n.startswith("encoder.blocks.0.")} == {0.5**2}
    assert {scale[n] for n in scale if n.startswith("encoder.blocks.1.")} == {0.5}
    assert {scale[n] for n in scale if n.startswith(("encoder.fc_norm", "head"))} == {1.0}


def test_weight_decay_spares_vectors_tokens_and_positions(objective):
    spared = [n for n, p in objective.named_parameters() if not decays(n, p)]
    assert all(n.endswith("bias") or "norm" in n or "token" in n or "positions" in n for n in spared)
    assert "encoder.embed.weight" not in spared


def test_rates_are_set_by_group(objective):
    optimizer = adamw(objective, Optimizer(layer_decay=0.5), torch.device("cpu"))
    set_rate(optimizer, 2.0)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0, 1.0, 0.5, 0.25}
