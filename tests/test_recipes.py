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
            flags = expand(function, preset, {})
            assert flags
            with torch.device("meta"):
                built = assemble(function, flags)
            for flag, value in flags.items():
                if flag not in inspect.signature(function).parameters:
                    group, _, field = flag.rpartition(".")
                    assert getattr(getattr(built, GROUPS[group][0]) if group else built, field) == value


def millions(objective: torch.nn.Module, tables: bool = True) -> float:
    """Parameters in millions; position tables count whether they are learned or fixed, as in the references."""
    named = {name: p for name, p in objective.named_parameters() if tables or not name.endswith("positions.table")}
    if tables:
        named |= {name: b for name, b in objective.named_buffers() if name.endswith(".table")}
    return sum(tensor.numel() for tensor in named.values()) / 1e6


# Counted on the reference implementations at 224²; VideoMAE's fixed tables are no part of its state, so not of these.
PUBLISHED = [
    ("vit", {"size": "S"}, 22.0507, True),
    ("vit", {"size": "B"}, 86.5677, True),
    ("vit", {"size": "B", "crop": 384}, 86.8595, True),
    ("vit", {"size": "L"}, 304.3266, True),
    ("vit", {"size": "H"}, 632.0456, True),
    ("mae", {"size": "B"}, 111.9078, True),
    ("mae", {"size": "L"}, 329.5419, True),
    ("mae", {"size": "H"}, 657.0745, True),
    ("mae:finetune", {"size": "B"}, 86.5677, True),
    ("mae:finetune", {"size": "L"}, 304.33, True),
    ("mae:finetune", {"size": "H", "crop": 448}, 633.0288, True),
    ("mae_st", {"size": "B"}, 99.8989, True),
    ("mae_st", {"size": "L"}, 317.7316, True),
    ("mae_st", {"size": "H"}, 645.2325, True),
    ("mae_st:finetune", {"size": "B"}, 86.7022, True),
    ("mae_st:finetune", {"size": "L"}, 304.51, True),
    ("mae_st:finetune", {"size": "H"}, 632.4241, True),
    ("videomae", {"size": "S"}, 24.0294, False),
    ("videomae", {"size": "B"}, 94.2109, False),
    ("videomae", {"size": "L", "decoder_depth": 4}, 317.782, False),
    ("videomae", {"size": "L"}, 342.997, False),
    ("videomae", {"size": "H"}, 692.4873, False),
    ("videomae:finetune", {"size": "S"}, 22.03, False),
    ("videomae:finetune", {"size": "B"}, 86.5348, False),
    ("videomae:finetune", {"size": "L"}, 304.2707, False),
    ("videomae:finetune", {"size": "H"}, 632.1194, False),
]


@pytest.mark.parametrize(("name", "flags", "published", "tables"), PUBLISHED)
def test_published_size(name: str, flags: dict[str, Any], published: float, tables: bool) -> None:
    with torch.device("meta"):
        objective = ALL[name](**flags).objective
    assert millions(objective, tables) == pytest.approx(published, rel=0.005)


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
    for name in having("num_classes"):
        with_flip, without = (len(kit.small(ALL[name], flip=flip).data.transform) for flip in (True, False))
        assert with_flip == without + 1
