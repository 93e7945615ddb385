"""MAE3D's published checkpoints."""

from __future__ import annotations

import pytest
import torch

import kit
from unveil import weights
from unveil.errors import UserError
from unveil.recipes.mae3d import finetune, mae3d
from unveil.weights.mae3d import HEAD


def published_classifier() -> dict[str, torch.Tensor]:
    """The names of `MAE3D_cls`, each norm under both of its names, as `DataParallel` saves them."""
    state = kit.small(finetune, size="64x6x8").objective.state_dict()
    found = {}
    for name, value in state.items():
        *_, part, rest = name.split(".")
        if name.startswith("encoder.embed."):
            number = int(name.split(".")[3]) + 1 if "blocks" in name else 5
            if part == "linear":
                found[f"patch_embed.conv{number}.0.{rest}"] = (
                    value[..., None] if number == 5 else value[..., None, None]
                )
            else:
                found[f"patch_embed.conv{number}.1.{rest}"] = found[f"patch_embed.bn{number}.{rest}"] = value
        else:
            theirs = next(old + name.removeprefix(new) for old, new in HEAD.items() if name.startswith(new))
            found[theirs] = value
    return {f"module.{name}": value for name, value in found.items()}


def test_a_classifier_is_read_and_answers_alike(tmp_path):
    state = published_classifier()
    torch.save(state, tmp_path / "model_cls.t7")
    recipe = weights.load("mae3d", tmp_path / "model_cls.t7")
    ours = kit.small(finetune, size="64x6x8").objective.eval()
    x = kit.batch_for(ours)
    # Of 20 neighbours, as published; the tensors do not tell.
    for block in ours.encoder.embed.blocks:
        block.neighbours = 20
    assert torch.equal(recipe.objective.eval().logits(x), ours.logits(x))


def test_names_are_recognised():
    state = {name.removeprefix("module."): value for name, value in published_classifier().items()}
    assert [name for name in weights.families() if weights._fits(name, state)] == ["mae3d"]
    with pytest.raises(UserError, match=r"not the weights of mae.*mae3d"):
        weights.convert("mae", published_classifier())


def test_a_tensor_that_is_left_over_is_said():
    with pytest.raises(UserError, match=r"left over: patch_embed\.extra"):
        weights.load("mae3d", published_classifier() | {"module.patch_embed.extra": torch.zeros(1)})
    assert callable(mae3d)
