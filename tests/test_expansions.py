"""Networks that are functions of a few numbers: X3D of its six factors, RegNet of four."""

import pytest
import torch

from unveil import recipes
from unveil.errors import UserError
from unveil.recipes.regnet import SIZES as REGNETS
from unveil.recipes.regnet import Line, Shape, quantised, regnet
from unveil.recipes.x3d import SIZES, STEPS, Factors, expanded, x3d
from unveil.sizes import gmacs

#: Parameters in millions and multiply-adds in 10⁹ at the training crop (XL, as in the paper, at that of testing).
X3D = {"XS": (3.794, 0.605), "S": (3.794, 1.963), "M": (3.794, 4.732), "L": (6.153, 18.37), "XL": (11.0, 48.4)}
#: Of the release's table.
MILLIONS = {
    "X": (2.7, 5.2, 6.2, 7.3, 9.2, 15.3, 22.1, 26.2, 39.6, 46.1, 54.3, 107.8),
    "Y": (3.2, 4.3, 6.1, 6.3, 11.2, 19.4, 20.6, 30.6, 39.2, 51.8, 83.6, 145.0),
}
GMACS = {
    "X": (0.2, 0.4, 0.6, 0.8, 1.6, 3.2, 4.0, 6.5, 8.0, 12.1, 15.9, 31.7),
    "Y": (0.2, 0.4, 0.6, 0.8, 1.6, 3.2, 4.0, 6.4, 8.0, 12.1, 15.9, 32.3),
}


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("size", X3D)
def test_steps_of_expansion_give_the_published_networks(size: str) -> None:
    with torch.device("meta"):
        recipe = x3d(size, test_crop=356 if size == "XL" else SIZES[size].crop)
    parameters, macs = X3D[size]
    assert millions(recipe.objective) == pytest.approx(parameters, rel=0.01)
    assert gmacs(recipe) == pytest.approx(macs, rel=0.005)


def test_each_step_expands_an_axis() -> None:
    factors = Factors()
    for _, step in STEPS[1:]:
        assert set(step) <= {"stride", "frames"} or len(step) == 1
        expansion = factors._replace(**step)  # type: ignore[arg-type]
        assert expansion != factors
        for axis in ("frames", "crop", "width", "bottleneck", "depth"):
            assert getattr(expansion, axis) >= getattr(factors, axis)
        factors = expansion
    assert expanded(STEPS)["XL"] == factors == Factors(5, 16, 312, 2.9, 2.25, 5.0)
    assert list(expanded(STEPS)) == ["X2D", "XS", "S", "M", "L", "XL"]


def test_every_factor_can_be_given() -> None:
    with torch.device("meta"):
        plain = x3d("M")
        for axis, value in {"width": 1.0, "bottleneck": 1.0, "depth": 1.0}.items():
            assert millions(x3d("M", **{axis: value}).objective) < millions(plain.objective)  # type: ignore[arg-type]
    assert recipes.find("x3d")("debug", frames=3, stride=7).data.signal.clip.frames == 3
    with pytest.raises(UserError, match="There is no X3D of size 'XXL'"):
        x3d("XXL")


@pytest.mark.parametrize(
    ("kind", "number", "name"),
    [(kind, i, name) for kind in "XY" for i, name in enumerate(n[1:] for n in REGNETS if n[0] == "X")],
)
def test_lines_give_the_published_networks(kind: str, number: int, name: str) -> None:
    with torch.device("meta"):
        recipe = regnet(kind + name)
    assert millions(recipe.objective) == pytest.approx(MILLIONS[kind][number], abs=0.06)
    assert gmacs(recipe) == pytest.approx(GMACS[kind][number], abs=0.06)


def test_a_line_is_quantised() -> None:
    """The example of the golden file: thirteen widths 24, 32, 40 … in three stages, made multiples of their groups."""
    assert quantised(Line(13, 24, 8.0, 2.2, 8)) == Shape((24, 56, 120), (2, 5, 6), (8, 8, 8), False)
    wide = quantised(REGNETS["Y32GF"])
    assert (wide.widths, wide.depths) == ((232, 696, 1392, 3712), (2, 5, 12, 1))
    assert quantised(Line(2, 8, 0.0, 2.0, 16)) == Shape((8,), (2,), (8,), False)  # a group is no wider than its stage


def test_stages_can_be_given() -> None:
    with torch.device("meta"):
        named, given = regnet("X200MF"), regnet("X:1x24,1x56,4x152,7x368:8")
    assert millions(named.objective) == millions(given.objective)
    with pytest.raises(UserError, match="There is no RegNet of size 'Z'"):
        regnet("Z")
