import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.masking import Cube, draw
from unveil.tokens import refine, unravel

grids = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))


def hidden(masker: Cube, grid: tuple[int, ...], seed: int) -> torch.Tensor:
    """1 where a place is masked [*grid]."""
    flags = torch.zeros(math.prod(grid), dtype=torch.int64)
    flags[masker(grid, torch.Generator().manual_seed(seed)).masked] = 1
    return flags.view(grid)


@settings(max_examples=80, deadline=None)
@given(grids, st.floats(0, 0.9), st.integers(0, 2**62))
def test_exactly_so_many_are_hidden(grid, ratio, seed) -> None:
    if round(ratio * math.prod(grid)) == math.prod(grid):
        ratio = 0.0
    assert hidden(Cube(ratio), grid, seed).sum() == round(ratio * math.prod(grid))


def test_the_published_grid() -> None:
    flags = hidden(Cube(0.4), (8, 7, 7), 0)
    assert flags.sum() == 157
    masked = Cube(0.4)((8, 7, 7), torch.Generator().manual_seed(0)).masked[None]
    stem, output = (refine(masked, (8, 7, 7), grid) for grid in ((8, 56, 56), (8, 14, 14)))
    assert (stem.shape[1], output.shape[1]) == (157 * 64, 157 * 4)
    assert {tuple(place) for place in (unravel(stem[0], (8, 56, 56)) // torch.tensor([1, 4, 4])).tolist()} == {
        tuple(place) for place in unravel(output[0], (8, 14, 14)).tolist()
    }


def test_neighbours_in_space_and_time_are_hidden_together() -> None:
    """Of 157 of 392 places at random 40 % would be."""
    shares = []
    for seed in range(50):
        flags = hidden(Cube(), (8, 7, 7), seed)
        for axis in range(3):
            before, after = flags.narrow(axis, 0, flags.shape[axis] - 1), flags.narrow(axis, 1, flags.shape[axis] - 1)
            shares.append(after[before == 1].float().mean())
    assert torch.stack(shares).mean() > 0.7


def test_frames_differ_and_no_two_masks_are_alike() -> None:
    masks = draw(Cube(), (8, 7, 7), torch.arange(500)).masked
    assert len({tuple(row) for row in masks.tolist()}) > 495
    counts = masks.flatten().bincount(minlength=392).view(8, 49) / 500
    assert counts.min() > 0.02
    assert counts.max() < 0.95
    frames = [{tuple(frame.tolist()) for frame in hidden(Cube(), (8, 7, 7), seed).flatten(1)} for seed in range(20)]
    assert all(len(found) > 1 for found in frames)


@pytest.mark.parametrize("wrong", [{"aspect": 1.5}, {"count": -1}, {"smallest": 0}])
def test_shapes_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"aspect|positive"):
        Cube(**wrong)


def test_what_cannot_be_hidden() -> None:
    with pytest.raises(UserError, match="Of 8 places 8 cannot be hidden"):
        Cube(count=8)((2, 2, 2), torch.Generator())
    with pytest.raises(UserError, match="masking ratio"):
        Cube(1.0)
