"""Groups of parameters."""

import pytest
import torch

import unveil
from unveil.errors import UserError
from unveil.recipe import Optimizer
from unveil.training.optimizer import decays, groups, make, set_rate


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
    optimizer = make(objective, Optimizer(layer_decay=0.5), torch.device("cpu"))
    set_rate(optimizer, 2.0, 4.0)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0, 1.0, 0.5, 0.25}


def test_sgd_is_nesterovs(objective):
    """Two steps by hand: v ← m v + g + w p; p ← p − r (g + w p + m v) (Sutskever et al. 2013, in PyTorch's form)."""
    optimizer = make(objective, Optimizer(kind="sgd", momentum=0.5, weight_decay=0.1), torch.device("cpu"))
    parameter = objective.head.linear.weight
    p, v = parameter.detach().clone().double(), 0.0
    for rate in (0.5, 0.25):
        set_rate(optimizer, rate, rate)
        for each in objective.parameters():
            each.grad = torch.full_like(each, 2.0)
        optimizer.step()
        slope = 2.0 + 0.1 * p
        v = 0.5 * v + slope
        p = p - rate * (slope + 0.5 * v)
    torch.testing.assert_close(parameter.double(), p, rtol=1e-5, atol=1e-6)


def test_without_momentum_there_is_no_nesterov(objective):
    assert not make(objective, Optimizer(kind="sgd", momentum=0.0), torch.device("cpu")).param_groups[0]["nesterov"]


def test_an_unknown_kind_is_named(objective):
    with pytest.raises(UserError, match=r"--optimizer.kind lion: use adamw or sgd"):
        make(objective, Optimizer(kind="lion"), torch.device("cpu"))


def test_a_constant_rate_is_the_peak_rate(objective):
    """Marked on the module: warm-up and decay pass its parameters by."""
    objective.head.constant_rate = True
    optimizer = make(objective, Optimizer(), torch.device("cpu"))
    set_rate(optimizer, 0.5, 4.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in objective.head.parameters()} == {4.0}
    assert {rates[id(p)] for p in objective.encoder.parameters()} == {0.5}
