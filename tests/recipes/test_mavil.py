"""MAViL: the second stage has the properties of every system; its teacher decides the network, and is copied as it is."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import kit
from unveil.errors import UserError
from unveil.objectives import AlignedAutoencoder
from unveil.recipes import mavil
from unveil.targets import Contextual


def second(**flags: Any) -> Any:
    return mavil.mavil(**kit.flags_of(mavil.mavil) | {"teacher": "somewhere"} | flags)


second.__signature__ = inspect.signature(mavil.mavil)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "check",
    [
        kit.check_gradients,
        kit.check_towers,
        kit.check_learns,
        kit.check_seed,
        kit.check_masks,
        kit.check_checkpointing,
    ],
)
def test_the_second_stage(check: Any) -> None:
    check(second)


def test_the_second_stage_is_saved_with_its_teacher(tmp_path: Path) -> None:
    kit.check_state(second, tmp_path)
    recipe = second()
    assert isinstance(recipe.objective, AlignedAutoencoder)
    assert isinstance(recipe.objective.targets, Contextual)
    teacher = {name for name in recipe.objective.state_dict() if name.startswith("targets.teacher.")}
    own = {name for name in recipe.objective.state_dict() if name.startswith("encoder.")}
    assert {name.removeprefix("targets.teacher.") for name in teacher} == {n.removeprefix("encoder.") for n in own}
    (borrowed,) = recipe.borrowed
    assert borrowed == ("targets.teacher", "somewhere", "encoder", "--teacher")


def test_a_first_stage_borrows_nothing_and_can_be_drawn() -> None:
    recipe = kit.small(mavil.mavil)
    assert not recipe.borrowed
    assert recipe.objective.drawable  # pyright: ignore
    assert not second().objective.drawable
    assert recipe.objective.contrasts
    assert mavil.SETTLED["mavil"]({"size": "S"}) == {"size": "S"}


def test_sizes_by_arithmetic() -> None:
    """ViT-B: two encoders of 12 layers and two joint ones; two decoders of eight blocks of width 512."""
    with torch.device("meta"):
        objective = mavil.mavil().objective

    def linear(inside: int, outside: int) -> int:
        return inside * outside + outside

    def block(width: int) -> int:
        return linear(width, 3 * width) + linear(width, width) + 2 * linear(width, 4 * width) - 3 * width + 4 * width

    patches = {"video": 1536, "audio": 256}
    encoders = sum(linear(values, 768) + 12 * block(768) + 2 * 768 for values in patches.values())
    joint = 2 * block(768) + 2 * 768
    ends = sum(linear(768, 512) + 512 + 2 * 512 + linear(512, values) for values in patches.values())
    windows = 8 * 16 * 7 * 7  # a bias of the attention for each head and offset of the sound's windows of 4 × 4
    spaces = 2 * 768 * 512
    found = sum(p.numel() for p in objective.parameters())
    # The windowed decoder has further small parts of its own (`WindowBlock`): they are counted from it.
    audio = objective.decoder.decoders["audio"].blocks  # pyright: ignore
    audio = sum(p.numel() for p in audio.parameters())
    assert audio >= 8 * block(512) + min(0, windows)
    assert found == encoders + joint + ends + 8 * block(512) + audio + spaces


@pytest.mark.parametrize(
    ("flags", "words"), [({"teacher": "absent"}, "absent"), ({"teacher": "absent", "size": "S"}, "absent")]
)
def test_a_teacher_that_is_not_there(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"--teacher {words}.*makes one"):
        mavil.SETTLED["mavil"](flags)
