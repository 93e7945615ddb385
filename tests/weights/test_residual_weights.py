"""Published residual networks under our names: torchvision's compute the same here; what kind a file is, is read off it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import video

from golden.reference import read, state_of  # pyright: ignore[reportMissingImports]
from unveil import weights
from unveil.errors import UserError
from unveil.flags import build
from unveil.verbs import import_


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network whose norms are not what they begin as, so that none can be forgotten."""
    torch.manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("system", "build", "flags"),
    [
        ("resnet", models.resnet18, {"size": "18"}),
        ("resnet", models.resnet50, {"size": "50"}),
        ("resnext", models.resnext50_32x4d, {"size": "50_32x4d"}),
        ("resnet", models.wide_resnet50_2, {"size": "50_1x128d"}),
        ("regnet", models.regnet_x_400mf, {"size": "X:1x32,2x64,7x160,12x400:16"}),  # of other widths than pycls'
        ("regnet", models.regnet_y_400mf, {"size": "Y400MF"}),
        ("r2plus1d", video.r2plus1d_18, {"size": "18"}),
        ("r2plus1d", video.mc3_18, {"size": "MC3-18"}),
        ("r2plus1d", video.r3d_18, {"size": "R3D-18"}),
    ],
)
@torch.no_grad()
def test_torchvisions_networks_compute_the_same(system: str, build: Any, flags: dict[str, Any]) -> None:
    theirs = random(build(num_classes=7))
    converted = weights.convert(system, theirs.state_dict())
    assert converted.flags.items() >= {**flags, "num_classes": 7}.items()
    objective: Any = weights.load(system, theirs.state_dict()).objective.eval()
    x = torch.randn(2, 3, *([4] if objective.key == "video" else []), 64, 64)
    torch.testing.assert_close(objective.logits({objective.key: x}), theirs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "recipe", "flags"),
    [
        ("c2d-8x8_r50_w16_c64", "c2d", {"size": "R50_8x8", "width": 16}),
        ("i3d-8x8_r50_w16_c64", "i3d", {"size": "R50_8x8", "width": 16}),
        ("slow-8x8_r50_w16_c64", "slow", {"size": "R50_8x8", "width": 16}),
        (
            "nonlocal-slow_nln_8x8_r50_dot1_w16_c64",
            "nonlocal",
            {"backbone": "slow", "similarity": "dot", "places": "1.1"},
        ),
        ("slowfast-8x8_r50_w16_c64", "slowfast", {"size": "R50_8x8", "lateral": 7, "beta": 8}),
        ("x3d-xs_full_c64", "x3d", {"size": "M", "width": 2.0, "depth": 2.2, "norm_first": True}),
        ("pytorchvideo-x3d_m_w1_t8_c64", "x3d", {"width": 1.0, "divisor": 8, "norm_first": False}),
        ("pytorchvideo-slowfast_r50_w16_c64", "slowfast", {"size": "R50_8x8", "width": 16}),
        ("pytorchvideo-r2plus1d_r50_w16_t8_c64", "r2plus1d", {"size": "R50", "width": 16}),
        ("regnet-y_tiny_c64", "regnet", {"size": "Y:2x24,5x56,6x120:8", "stem_width": 16}),
        ("resnext-b2222_8x4d_c64", "resnet", {"size": "2,2,2,2_8x4d", "width": 64}),
    ],
)
def test_kind_and_size_are_read_off_names_and_shapes(name: str, recipe: str, flags: dict[str, Any]) -> None:
    golden = read(name)
    converted = weights.convert(golden["system"], state_of(golden))
    assert converted.recipe == recipe
    assert converted.flags.items() >= flags.items()
    assert not converted.unused


def pycls_resnet() -> dict[str, torch.Tensor]:
    """A small network of ours with pycls' names."""
    ours = build("resnet", size="1,1,1,1", width=8, num_classes=5).objective.state_dict()
    names = {
        r"encoder\.stem\.0\.norm\.": "stem.bn.",
        r"encoder\.stem\.0\.": "stem.",
        r"encoder\.blocks\.(\d)\.shortcut\.conv\.": r"s<\1>.b1.proj.",
        r"encoder\.blocks\.(\d)\.shortcut\.norm\.": r"s<\1>.b1.bn.",
        r"encoder\.blocks\.(\d)\.branch\.(.)\.conv\.": r"s<\1>.b1.f.\2.",
        r"encoder\.blocks\.(\d)\.branch\.(.)\.norm\.": r"s<\1>.b1.f.\2_bn.",
        r"head\.linear\.": "head.fc.",
    }
    renamed = {}
    for name, tensor in ours.items():
        for pattern, theirs in names.items():
            name = re.sub(pattern, theirs, name)
        renamed[re.sub(r"<(\d)>", lambda match: str(int(match[1]) + 1), name)] = tensor
    return renamed


@pytest.mark.parametrize(
    ("system", "state", "stem"),
    [
        ("regnet", lambda: state_of(read("regnet-y_tiny_c64")), "encoder.stem.conv.weight"),
        ("resnet", pycls_resnet, "encoder.stem.0.conv.weight"),
    ],
)
def test_pycls_networks_are_shown_the_colours_they_learned(
    system: str, state: Callable[[], dict[str, torch.Tensor]], stem: str
) -> None:
    given = state()
    as_saved = weights.convert(system, dict(given), bgr=False)
    turned = weights.convert(system, dict(given))
    assert not turned.unused
    assert torch.equal(turned.state[stem], as_saved.state[stem].flip(1))
    assert not torch.equal(turned.state[stem], as_saved.state[stem])
    assert any("blue, green, red" in note for note in turned.notes)
    assert not as_saved.notes


def test_a_hint_of_no_use_is_refused() -> None:
    with pytest.raises(UserError, match=r"--num-heads: the tensors of mvitv2 tell all"):
        weights.convert("mvitv2", state_of(read("mvitv2-image_t_d10_c64")), num_heads=3)


def test_pytorchvideos_files_are_those_of_a_system_too() -> None:
    golden = read("pytorchvideo-x3d_m_w1_t8_c64")
    assert weights.convert("x3d", state_of(golden)).recipe == "x3d"


def test_what_shapes_do_not_tell_is_said_or_asked() -> None:
    state = state_of(read("x3d-xs_full_c64"))
    assert any("XS, S, M share" in note for note in weights.convert("x3d", state).notes)
    given = weights.convert("x3d", state, size="XS")
    assert given.flags["size"] == "XS"
    assert not given.notes


def test_another_systems_file_is_named() -> None:
    with pytest.raises(UserError, match=r"weights of i3d, not of slow.*look like those of i3d"):
        weights.convert("slow", state_of(read("i3d-8x8_r50_w16_c64")))
    with pytest.raises(UserError, match=r"not the weights of resnet"):
        weights.convert("resnet", state_of(read("regnet-x_tiny_c64")))


def test_a_tensor_without_place_is_reported(tmp_path: Path) -> None:
    state = state_of(read("slowfast-8x8_r50_w16_c64"))
    file = tmp_path / "slowfast.pyth"
    torch.save({"epoch": 196, "model_state": state | {"s9.extra": torch.zeros(2)}, "cfg": "TRAIN: {}"}, file)
    with pytest.raises(UserError, match=r"left over: s9\.extra"):
        import_(file, recipe="slowfast", out=tmp_path / "run", quiet=True)
    torch.save({"epoch": 196, "model_state": state, "cfg": "TRAIN: {}"}, file)
    run = import_(file, recipe="slowfast", out=tmp_path / "run", quiet=True)
    assert run.info["flags"]["size"] == "R50_8x8"
