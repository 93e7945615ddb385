"""Published weights of Inception on clips: torchvision's network is a second reference; names of classes travel with a file."""

import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.video import s3d as torchvisions

import unveil
from unveil import weights
from unveil.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import reference


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    network = torchvisions(num_classes=400).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.running_var.uniform_(0.5, 1.5)
            part.running_mean.normal_(0, 0.2)
    return network


def test_torchvisions_network_gives_the_same_logits(published):
    recipe = weights.load("s3d", {f"module.{name}": value for name, value in published.state_dict().items()})
    assert recipe.data.mean == (0.43216, 0.394666, 0.37645)
    x = torch.randn(1, 3, 16, 224, 224)
    with torch.no_grad():
        expected = published(x)
        found = recipe.objective.eval().logits({"video": x})
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("classes", "first", "last"), [("kinetics400", "abseiling", "zumba"), (None, "000", "399")])
def test_an_imported_run_knows_its_classes(published, tmp_path: Path, classes, first, last):
    torch.save(published.state_dict(), tmp_path / "s3d.pth")
    run = unveil.import_(tmp_path / "s3d.pth", recipe="s3d", out=tmp_path / "run", classes=classes, quiet=True)
    assert (len(run.classes), run.classes[0], run.classes[-1]) == (400, first, last)
    assert run.recipe.data.mean == (0.43216, 0.394666, 0.37645)
    assert "BSD-3-Clause" in run.info["licence_of_start"]
    with pytest.raises(UserError, match="1000 names for the checkpoint's 400"):
        unveil.import_(tmp_path / "s3d.pth", recipe="s3d", out=tmp_path / "b", classes="imagenet", quiet=True)


def test_a_text_tower_is_left_out_and_said():
    golden = reference.read("s3dg-s2d_t16_c64")
    converted = weights.convert("s3dg", reference.state_of(golden) | {"text_module.fc1.weight": torch.zeros(2, 2)})
    assert converted.flags == {"size": "B", "stem": "blocks", "num_classes": 11}
    assert converted.notes == ["the text tower (1 tensors) is left out"]
    assert not converted.unused
    with pytest.raises(UserError, match="not the weights of s3dg: no 'conv1"):
        weights.convert("s3dg", {"text_module.fc1.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="neither 3×7×7 nor blocks"):
        weights.convert("s3dg", {"conv1.conv1.weight": torch.zeros(64, 3, 7, 7, 7)})


def test_names_that_are_not_the_familys_are_refused(published):
    state = dict(published.state_dict())
    with pytest.raises(UserError, match="left over: extra"):
        weights.load("s3d", {**state, "extra": torch.zeros(1)})
    state.pop("features.5.branch0.0.weight")
    with pytest.raises(UserError, match=r"missing: encoder\.blocks\.0\.point\.conv\.weight"):
        weights.load("s3d", state)
