"""MaskFeat under PySlowFast's names: fine-tuned networks compute what they should; files that are not what they seem."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden.reference import fill, read, state_of  # pyright: ignore[reportMissingImports]
from unveil import weights
from unveil.errors import UserError

NAMES = {"vit": "maskfeat-vit-image", "mvitv2": "maskfeat-mvitv2-video"}
INPUTS = {"vit": (2, 3, 64, 64), "mvitv2": (2, 3, 8, 64, 64)}


def pretrained(kind: str) -> dict[str, Tensor]:
    return state_of(read(NAMES[kind]))


def tuned(kind: str) -> dict[str, Tensor]:
    """The names that PySlowFast's `MViT` has where its `MaskMViT` has a mask token and a prediction."""
    state = {n: v for n, v in pretrained(kind).items() if not n.startswith(("mask_token", "pred_head"))}
    width = len(pretrained(kind)["pred_head.transforms.0.0.weight"])
    shapes = {
        "norm.weight": [width],
        "norm.bias": [width],
        "head.projection.weight": [7, width],
        "head.projection.bias": [7],
    }
    return state | {name: fill(name, shape) for name, shape in shapes.items()}


def load(state: dict[str, Tensor]) -> Any:
    return weights.load("maskfeat", state, num_heads=4).objective.eval()


@pytest.mark.parametrize("kind", NAMES)
@torch.no_grad()
def test_a_classifier_pools_before_its_norm(kind: str) -> None:
    state, x = tuned(kind), torch.randn(INPUTS[kind], generator=torch.Generator().manual_seed(0))
    converted = weights.convert("maskfeat", state, num_heads=4)
    assert converted.recipe == "maskfeat:finetune"
    assert converted.flags["encoder"] == kind
    assert converted.flags["num_classes"] == 7
    objective, before = load(state), load(pretrained(kind))
    features = before.encoder(x, layer=-1).x.mean(1)
    normed = functional.layer_norm(features, features.shape[1:], state["norm.weight"], state["norm.bias"], 1e-6)
    expected = functional.linear(normed, state["head.projection.weight"], state["head.projection.bias"])
    torch.testing.assert_close(objective.logits({objective.key: x}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NAMES)
def test_an_encoder_alone(kind: str) -> None:
    state = {name: value for name, value in tuned(kind).items() if not name.startswith("head.")}
    converted = weights.convert("maskfeat", state, num_heads=4)
    assert converted.absent == ("head.",)
    weights.build(converted)


def test_kernels_of_the_target_are_passed_over() -> None:
    given = pretrained("vit") | {"hogs.0.weight_x": torch.zeros(3, 1, 3, 3), "hogs.0.gkern": torch.zeros(16, 16)}
    converted = weights.convert("maskfeat", given, num_heads=4)
    assert not converted.unused
    assert converted.flags == {
        "encoder": "vit", "size": "64x2x4", "patch": 16, "crop": 64, "cell": 8
    }  # fmt: skip


def test_sides_are_read_off_the_prediction() -> None:
    state = pretrained("mvitv2")
    assert weights.convert("maskfeat", state).flags == {
        "encoder": "mvitv2", "size": "24x1x1-2-2", "crop": 64, "frames": 8, "patch": 16, "cell": 8
    }  # fmt: skip
    finer = pretrained("vit") | {"pred_head.projections.0.weight": torch.zeros(27 * 16, 64)}
    assert weights.convert("maskfeat", finer, num_heads=4).flags["cell"] == 4


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("vit", {"pred_head.projections.0.weight": torch.zeros(768, 64)}, "predicts 768 values"),
        ("vit", {"patch_embed.proj.weight": torch.zeros(64, 3, 2, 16, 16)}, "one of clips"),
        ("mvitv2", {"patch_embed.proj.weight": torch.zeros(24, 3, 3, 16, 16)}, "patches are of"),
        (
            "mvitv2",
            {"blocks.0.mlp.fc2.weight": torch.zeros(24, 96), "blocks.2.mlp.fc2.weight": torch.zeros(48, 192)},
            "widens",
        ),
    ],
)
def test_what_is_none(kind: str, change: dict[str, Tensor], words: str) -> None:
    with pytest.raises(UserError, match=words):
        weights.convert("maskfeat", pretrained(kind) | change)


def test_a_prediction_from_nowhere() -> None:
    state = {name: value for name, value in pretrained("vit").items() if "projections" not in name}
    with pytest.raises(UserError, match="no linear layer"):
        weights.convert("maskfeat", state)


def test_other_systems_are_named() -> None:
    with pytest.raises(UserError, match="They look like those of maskfeat"):
        weights.load("mvit", pretrained("mvitv2"))
