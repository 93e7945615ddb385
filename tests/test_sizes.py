"""What `unveil recipes NAME` says a network costs, against real passes and by hand."""

import pytest
import torch

import kit
from unveil import cli, recipes
from unveil.sizes import activation_bytes, gmacs, kept_bytes, readable, recomputing, sample


@pytest.mark.parametrize("name", ["vit", "mae", "videomae", "mae_st:finetune"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_of_a_real_pass(name: str, checkpointing: bool) -> None:
    function = recipes.find(name)
    with torch.device("meta"):
        weightless = kit.small(function)
    counted = activation_bytes(weightless, checkpointing)
    recipe = kit.small(function)
    objective, batch = recipe.objective.train(), sample(recipe)
    mask = {"mask": objective.masked(batch)} if hasattr(objective, "masked") else {}
    with recomputing(objective, checkpointing):
        kept = kept_bytes(objective, batch, **mask)
    # PyTorch's mean squared error keeps, behind its one number, the memory of all of them.
    target = objective.predict(batch, mask["mask"])[0].numel() * 4 if mask else 4
    count = len(batch["seed"])
    assert kept // count - counted in (0, (target - 4) // count)


def test_activations_of_a_perceptron() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    def loss(batch):
        return network(batch["x"]).sum()

    # ReLU keeps its result, which is the second layer's input; the sum of the outputs keeps nothing but itself.
    assert kept_bytes(loss, {"x": torch.zeros(5, 8)}) == 4 * (5 * 16 + 1)  # type: ignore[arg-type]


def test_checkpointing_keeps_less() -> None:
    with torch.device("meta"):
        recipe = recipes.find("vit")(size="S")
    assert activation_bytes(recipe, checkpointing=True) < activation_bytes(recipe) / 5


def test_multiply_adds_of_attention_are_counted() -> None:
    with torch.device("meta"):
        recipe = recipes.find("vit")(size="debug", num_classes=7)
        width, depth, tokens = recipe.objective.encoder.width, recipe.objective.encoder.depth, 197
    by_hand = 196 * 768 * width + depth * (12 * tokens * width**2 + 2 * tokens**2 * width) + 7 * width
    assert gmacs(recipe) == pytest.approx(by_hand / 1e9, rel=1e-6)


def test_recipes_says_what_a_network_costs(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["recipes", "videomae", "--size", "L"])
    said = " ".join(capsys.readouterr().out.split())
    assert "M parameters" in said
    assert "GMACs a sample" in said
    assert "of activations a sample in training" in said


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1.5e6, "1.5 MB"), (2e15, "2e+03 TB")])
def test_readable(size: float, text: str) -> None:
    assert readable(size) == text
