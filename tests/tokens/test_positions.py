import math

import pytest
import torch

from unveil.tokens import Positions, SumPositions, coordinates, sincos
from unveil.tokens.positions import flat_sincos, resize


def test_first_half_of_an_images_channels_encodes_the_column() -> None:
    coords = torch.tensor([[0, 0], [5, 0], [0, 5]])
    origin, row, column = sincos(coords, 16)
    assert torch.equal(row[:8], origin[:8])
    assert torch.equal(column[8:], origin[8:])
    angles = [5 * 10000 ** (-i / 4) for i in range(4)]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    assert column[:8].tolist() == pytest.approx(expected, abs=1e-6)
    assert row[8:].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("axes", "width"), [(1, 4), (2, 12), (3, 32), (3, 128)])
def test_any_number_of_axes_fills_the_width(axes: int, width: int) -> None:
    table = sincos(coordinates((3,) * axes), width)
    assert table.shape == (3**axes, width)
    assert len(table.unique(dim=0)) == 3**axes
    assert table.isfinite().all()


def test_sincos_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="even width"):
        sincos(coordinates((2, 2)), 7)
    with pytest.raises(ValueError, match="at least 6"):
        sincos(coordinates((2, 2, 2)), 4)


def test_flat_is_one_sinusoid_over_all_tokens() -> None:
    table = flat_sincos(7, 6)
    assert table[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (2 / 6)), abs=1e-6)
    assert table[3, 3].item() == pytest.approx(math.cos(3 / 10000 ** (2 / 6)), abs=1e-6)


@pytest.mark.parametrize("kind", ["sincos", "flat", "learned"])
def test_lookup_by_coordinates(kind) -> None:
    positions = Positions((2, 3), 8, kind)
    coords = torch.tensor([[[1, 2], [0, 1]]])
    assert torch.equal(positions(coords, (2, 3))[0], positions.table[[5, 1]])
    assert isinstance(positions.table, torch.nn.Parameter) == (kind == "learned")


def test_another_grid_interpolates_smoothly() -> None:
    positions = Positions((4, 4), 32)
    finer = positions(coordinates((8, 8))[None], (8, 8))[0]
    assert finer.shape == (64, 32)
    assert finer.mean().item() == pytest.approx(positions.table.mean().item(), abs=0.02)
    constant = resize(torch.ones(8, 3), (2, 2, 2), (4, 3, 5))
    assert torch.allclose(constant, torch.ones(60, 3))
    with pytest.raises(ValueError, match="cannot be interpolated"):
        resize(torch.ones(16, 3), (2, 2, 2, 2), (3, 2, 2, 2))


def test_a_flat_table_is_computed_anew() -> None:
    positions = Positions((2, 3), 8, "flat")
    assert torch.equal(positions(coordinates((4, 3))[None], (4, 3))[0], flat_sincos(12, 8))
    assert torch.equal(positions(coordinates((1, 3))[None], (1, 3))[0], flat_sincos(3, 8))  # a picture among clips
    larger = Positions((4, 3), 8, "flat")
    larger.load_state_dict(positions.state_dict())
    assert torch.equal(larger.table, flat_sincos(12, 8))


def test_axes_of_their_own_add_up() -> None:
    space, time = Positions((2, 3, 3), 8, "learned", axes=(1, 2)), Positions((2, 3, 3), 8, "learned", axes=(0,))
    both = SumPositions(space, time)
    coords = torch.tensor([[[1, 2, 0]]])
    assert torch.equal(both(coords, (2, 3, 3))[0, 0], space.table[6] + time.table[1])
    assert (space.grid, time.grid) == ((3, 3), (2,))
    assert both(coordinates((4, 3, 3))[None], (4, 3, 3)).shape == (1, 36, 8)


@pytest.mark.parametrize("kind", ["sincos", "learned"])
def test_a_state_of_another_grid_is_interpolated_on_loading(kind) -> None:
    small, large = Positions((2, 3, 3), 12, kind), Positions((4, 6, 6), 12, kind)
    large.load_state_dict(small.state_dict())
    expected = resize(small.table.detach(), (2, 3, 3), (4, 6, 6))
    assert torch.allclose(large.table, expected)
    assert large.native.tolist() == [4, 6, 6]
    # Two grids with the same number of places are not the same table.
    turned = Positions((3, 2, 3), 12, kind)
    turned.load_state_dict(small.state_dict())
    assert not torch.allclose(turned.table, small.table)


def test_the_same_grid_loads_as_it_is() -> None:
    one, other = Positions((2, 2), 8, "learned"), Positions((2, 2), 8, "learned")
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.table, other.table)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Positions((2, 2), 16, "learned").load_state_dict(one.state_dict())


def test_repr_names_the_grid() -> None:
    assert "sincos, grid=(2, 2), width=8" in repr(Positions((2, 2), 8))


@pytest.mark.parametrize("kind", ["sincos", "learned"])
def test_an_images_positions_are_repeated_along_time(kind) -> None:
    image, clip = Positions((3, 3), 12, kind), Positions((2, 3, 3), 12, kind)
    clip.load_state_dict(image.state_dict())
    assert torch.equal(clip.table, image.table.repeat(2, 1))
    larger = Positions((2, 6, 6), 12, kind)
    larger.load_state_dict(image.state_dict())
    assert torch.allclose(larger.table, resize(image.table.detach(), (3, 3), (6, 6)).repeat(2, 1))
    with pytest.raises(RuntimeError, match="size mismatch"):
        image.load_state_dict(clip.state_dict())


def test_the_first_axis_may_come_first() -> None:
    """As in MoCo v3, whose tables begin with the row."""
    coords = coordinates((3, 5))
    usual, swapped = sincos(coords, 16), sincos(coords, 16, first_axis_first=True)
    assert torch.equal(swapped, torch.cat([usual[:, 8:], usual[:, :8]], dim=1))
    table = Positions((3, 5), 16, first_axis_first=True)(coords[None], (3, 5))
    assert torch.equal(table[0], swapped)


def test_transposed_positions_are_those_of_the_other_grid_in_order() -> None:
    for grid in ((4, 3), (6, 3)):
        table = Positions((4, 3), 8, "transposed")(coordinates(grid)[None], grid)[0]
        assert torch.equal(table, sincos(coordinates(grid[::-1]), 8))
    other = Positions((6, 3), 8, "transposed")
    saved = Positions((4, 3), 8, "transposed").state_dict()
    assert other.adapt(saved) == ["table"]
    assert torch.equal(saved["table"], other.table)
