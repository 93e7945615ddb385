"""Every recipe's network, at debug size, as a torch program and as ONNX, for batches of any size."""

from collections.abc import Callable

import pytest
import torch

import kit
from unveil import recipes
from unveil.encoders import streams_of
from unveil.exporting.network import Features, Logits, Network
from unveil.exporting.programs import onnx_program, torch_program
from unveil.recipe import Recipe
from unveil.sizes import sample

#: One of each kind of encoder; the others are in the slow tests.
QUICK = {"videomae", "slowfast", "mvitv2"}


def network_of(recipe: Callable[..., Recipe]) -> tuple[Network, dict[str, torch.Tensor]]:
    """What a run of this recipe would export, with running statistics and factors that are not the first ones; signals."""
    built = kit.small(recipe)
    objective, key = built.objective.eval(), built.data.signal.key
    generator = torch.Generator().manual_seed(1)
    for name, value in objective.state_dict().items():
        if value.is_floating_point() and "positions" not in name:
            value.add_(0.05 * torch.rand(value.shape, generator=generator))
    encoder = objective.towers[key]
    streams = streams_of(encoder, key)
    module = Logits(objective, streams) if hasattr(objective, "logits") else Features(encoder, key)
    given = sample(built)
    shapes = {name: tuple(given[name].shape[1 + (built.objective.views > 1) :]) for name in streams}
    told = {**built.data.described(), "std": built.data.std}
    description = {"recipe": recipe.__name__, "preprocessing": told, "classes": []}
    x = {name: torch.randn(3, *shape, generator=generator) for name, shape in shapes.items()}
    return Network(module.eval(), key, "answer", shapes, description), x


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in recipes.names()]
)
def test_a_torch_program_answers_alike(name: str) -> None:
    network, x = network_of(recipes.find(name))
    torch_program(network, x)  # raises where it does not


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_onnx_answers_alike(name: str) -> None:
    network, x = network_of(recipes.find(name))
    onnx_program(network, x)
