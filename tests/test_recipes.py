"""Every recipe, and every published fine-tuning, has the properties of `kit`; published sizes are met."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kit
from unveil import recipes
from unveil.errors import UserError
from unveil.flags import GROUPS, assemble, expand, name_of
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Recipe


def all_recipes() -> dict[str, Callable[..., Recipe]]:
    found = {}
    for name in recipes.names():
        recipe = recipes.find(name)
        found[name] = recipe
        if finetune := getattr(recipes.module_of(recipe), "finetune", None):
            found[f"{name}:finetune"] = finetune
    return found


ALL = all_recipes()
every_recipe = pytest.mark.parametrize("recipe", ALL.values(), ids=ALL)


@every_recipe
def test_docstring(recipe: Callable[..., Recipe]) -> None:
    kit.check_docstring(recipe)


@every_recipe
def test_flags(recipe: Callable[..., Recipe]) -> None:
    kit.check_flags(recipe)


@every_recipe
def test_meta(recipe: Callable[..., Recipe]) -> None:
    kit.check_meta(recipe)


@every_recipe
def test_gradients(recipe: Callable[..., Recipe]) -> None:
    kit.check_gradients(recipe)


@every_recipe
def test_towers(recipe: Callable[..., Recipe]) -> None:
    kit.check_towers(recipe)


@every_recipe
def test_learns(recipe: Callable[..., Recipe]) -> None:
    kit.check_learns(recipe)


@every_recipe
def test_state(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    kit.check_state(recipe, tmp_path)


@every_recipe
def test_seed(recipe: Callable[..., Recipe]) -> None:
    kit.check_seed(recipe)


@every_recipe
def test_masks(recipe: Callable[..., Recipe]) -> None:
    kit.check_masks(recipe)


@every_recipe
def test_checkpointing(recipe: Callable[..., Recipe]) -> None:
    kit.check_checkpointing(recipe)


@pytest.mark.parametrize("name", recipes.names())
def test_presets_build(name: str) -> None:
    """Every preset sets flags that exist, to values of their kind, for the system and for its fine-tuning."""
    recipe = recipes.find(name)
    module = recipes.module_of(recipe)
    assert "small" in module.PRESETS
    for preset in module.PRESETS:
        for function in (recipe, getattr(module, "finetune", recipe)):
            if preset != "small" and function.__name__ not in module.PRESETS[preset]:
                continue  # of the other function alone
            flags = expand(function, preset, {})
            assert flags
            with torch.device("meta"):
                built = assemble(function, flags)
            for flag, value in flags.items():
                if flag not in inspect.signature(function).parameters:
                    group, _, field = flag.rpartition(".")
                    assert getattr(getattr(built, GROUPS[group][0]) if group else built, field) == value


# Millions, of sizes that tests/golden/published.csv lacks: counted on the reference implementations at 224².
PUBLISHED = [
    ("mvit", {"size": "B_16x4", "num_classes": 400}, 36.6107),
    ("mvit", {"size": "B_32x3", "num_classes": 400}, 36.6114),
    ("mvitv2", {"size": "L"}, 217.993),
    ("mvitv2", {"size": "H"}, 666.88),
    ("vit", {"size": "L"}, 304.3266),
    ("vit", {"size": "H"}, 632.0456),
    ("mae:finetune", {"size": "L"}, 304.33),
    ("mae_st:finetune", {"size": "L"}, 304.51),
    ("videomae:finetune", {"size": "S"}, 22.03),
    ("clip", {"size": "RN50"}, 102.01),
    ("clip", {"size": "RN101"}, 119.69),
    ("clip", {"size": "B/32"}, 151.28),
    ("clip", {"size": "B/16"}, 149.62),
    ("clip", {"size": "L/14"}, 427.62),
    ("clip", {"size": "H/14", "act": "gelu"}, 986.11),
    ("omnimae", {"size": "B"}, 94.22),
    ("omnimae", {"size": "L"}, 317.80),
    ("omnimae", {"size": "H"}, 657.66),
    ("omnimae:finetune", {"num_classes": 1000, "settings": "images"}, 87.01),
    ("omnimae:finetune", {}, 86.37),
]


@pytest.mark.parametrize(("name", "flags", "published"), PUBLISHED)
def test_published_size(name: str, flags: dict[str, Any], published: float) -> None:
    with torch.device("meta"):
        objective = ALL[name](**flags).objective
    assert sum(p.numel() for p in objective.parameters()) / 1e6 == pytest.approx(published, rel=0.005)


def test_names() -> None:
    assert {"mae", "mae_st", "videomae", "vit"} <= set(recipes.names())
    assert inspect.getmodule(recipes.find("nonlocal")) is sys.modules["unveil.recipes.nonlocal"]
    assert name_of(recipes.find("nonlocal")) == "nonlocal"  # a keyword, which no function can be called
    assert recipes.find("unveil.recipes.mae:mae") is recipes.find("mae")


def test_find_a_recipe_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "a_recipe_of_ones_own.py"
    path.write_text("from unveil.recipes.mae import mae\n\ndef mine():\n    return mae(size='debug')\n")
    recipe = recipes.find(f"{path}:mine")
    assert isinstance(recipe().objective, MaskedAutoencoder)
    assert recipes.module_of(recipe).__file__ == str(path)
    with pytest.raises(UserError, match=r"no function 'mime'; did you mean mine"):
        recipes.find(f"{path}:mime")
    clash = tmp_path / "inspect.py"
    clash.write_text("def mine(): ...\n")
    with pytest.raises(UserError, match="Rename the file"):
        recipes.find(f"{clash}:mine")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("videomea", "did you mean videomae"),
        ("zzz", "`unveil recipes` lists them"),
        ("absent.py:mine", "There is no file"),
        ("absent_module:mine", "no module 'absent_module'"),
        ("unveil.recipes.mae:absent", "has no function 'absent'"),
    ],
)
def test_find_names_what_is_wrong(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipes.find(name)


def test_vit_takes_images_or_clips() -> None:
    images, clips = ALL["vit"](size="debug"), ALL["vit"](size="debug", frames=8)
    assert (images.objective.key, clips.objective.key) == ("image", "video")
    assert isinstance(clips.objective, Supervised)
    assert clips.objective.encoder.patchify.size == (2, 16, 16)


def having(flag: str) -> list[str]:
    return [name for name, recipe in ALL.items() if flag in inspect.signature(recipe).parameters]


@pytest.mark.parametrize("name", having("multi_label"))
def test_several_labels(name: str) -> None:
    objective = kit.small(ALL[name], multi_label=True).objective
    batch = kit.batch_for(objective)
    batch["label"] = torch.zeros(kit.BATCH, kit.CLASSES)
    answer = objective(batch)
    assert answer["loss"].isfinite()
    assert "top1" not in answer


def test_flip_can_be_turned_off() -> None:
    for name in having("flip"):
        with_flip, without = (len(kit.small(ALL[name], flip=flip).data.transform) for flip in (True, False))
        assert with_flip == without + 1
