"""Flags → Recipe."""

import pytest

import unveil
from unveil.errors import UserError
from unveil.flags import expand, field_flags, name_of, recipe_flags
from unveil.recipes import find

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4}


def test_parameters_and_fields_are_set():
    recipe = unveil.build("videomae", **TINY, ratio=0.75, **{"optimizer.lr": 0.5, "loader.workers": 0, "ema": 0.9})
    assert recipe.objective.masker.ratio == 0.75
    assert (recipe.optimizer.lr, recipe.loader.workers, recipe.ema) == (0.5, 0, 0.9)
    assert recipe.objective.encoder.width == 32


def test_a_preset_stands_beneath_the_flags():
    flags = expand(find("videomae"), "small", {"frames": 4})
    assert flags["frames"] == 4
    assert flags["size"] == "S"


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="ratio"):
        unveil.build("videomae", ratoi=0.5)
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        unveil.build("videomae", **{"optimizer.rl": 1.0})
    with pytest.raises(UserError, match="small"):
        unveil.build("videomae", preset="smal")
    with pytest.raises(UserError, match="videomae"):
        unveil.build("videomea")


def test_values_that_cannot_be_built_are_named():
    with pytest.raises(UserError, match="There is no size 'XXL'"):
        unveil.build("videomae", size="XXL")


def test_a_function_that_returns_something_else_is_refused():
    def mine():
        return 3

    with pytest.raises(UserError, match="returned int"):
        unveil.build(mine)


def test_every_field_flag_and_parameter_has_help():
    flags = {**field_flags(), **recipe_flags(find("videomae")), **recipe_flags(find("vit"))}
    assert not [name for name, flag in flags.items() if not flag.help]
    assert {"optimizer.lr", "schedule.epochs", "loader.workers", "ema", "size"} <= set(flags)


def test_names_under_which_a_run_finds_its_recipe():
    from unveil.recipes import videomae

    assert name_of("mae") == "mae"
    assert name_of(videomae.videomae) == "videomae"
    assert find(name_of(videomae.finetune)) is videomae.finetune


def test_a_recipe_of_ones_own(tmp_path):
    file = tmp_path / "my_recipe_file.py"
    lines = [
        "from unveil.recipes.mae import mae",
        "def mine(ratio: float = 0.5):",
        "    return mae('debug', ratio, crop=32, patch=8)",
    ]
    file.write_text("\n".join(lines))
    assert unveil.build(f"{file}:mine", ratio=0.25).objective.masker.ratio == 0.25
    assert name_of(find(f"{file}:mine")) == f"{file}:mine"
