import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.masking import Block, draw
from unveil.masking.block import Box
from unveil.tokens import ravel, unravel

grids = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(masker: Block, grid: tuple[int, ...], seed: int) -> torch.Tensor:
    """1 where a place is masked [*grid]."""
    flags = torch.zeros(math.prod(grid), dtype=torch.int64)
    flags[masker(grid, generator(seed)).masked] = 1
    return flags.view(grid)


@settings(max_examples=80, deadline=None)
@given(grids, st.data())
def test_the_bits_of_a_box_are_its_places(grid, data) -> None:
    corner = tuple(data.draw(st.integers(0, side - 1)) for side in grid)
    size = tuple(data.draw(st.integers(0, side - start)) for side, start in zip(grid, corner, strict=True))
    bits = Box(corner, size).bits(grid)
    inside = unravel(torch.arange(math.prod(size)), size) + torch.tensor(corner)
    assert {i for i in range(math.prod(grid)) if bits >> i & 1} == set(ravel(inside, grid).tolist())
    assert bits < 1 << math.prod(grid)


@settings(max_examples=80, deadline=None)
@given(grids, st.floats(0, 0.95), st.one_of(st.none(), st.integers(1, 30)), st.integers(0, 2**62))
def test_exactly_so_many_of_every_frame_are_hidden(grid, ratio, smallest, seed) -> None:
    frame = grid[-2] * grid[-1]
    if round(ratio * frame) == frame:
        ratio = 0.0
    flags = hidden(Block(ratio, smallest=smallest), grid, seed).view(-1, frame)
    assert (flags.sum(1) == round(ratio * frame)).all()
    assert torch.equal(flags, flags[:1].expand_as(flags))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_a_count_instead_of_a_share(height, width, data) -> None:
    count = data.draw(st.integers(0, height * width - 1))
    assert hidden(Block(count=count), (height, width), 0).sum() == count


def test_published_counts() -> None:
    assert hidden(Block(), (14, 14), 0).sum() == 78
    assert hidden(Block(count=75, smallest=16), (14, 14), 0).sum() == 75


def test_neighbours_are_hidden_together() -> None:
    """Of hidden places most neighbours are hidden; of 78 of 196 places at random 40 % would be."""
    shares = []
    for seed in range(100):
        flags = hidden(Block(), (14, 14), seed)
        shares += [flags[:, 1:][flags[:, :-1] == 1].float().mean(), flags[1:][flags[:-1] == 1].float().mean()]
    assert torch.stack(shares).mean() > 0.75


def test_everywhere_and_no_two_alike() -> None:
    masks = draw(Block(), (14, 14), torch.arange(1000)).masked
    counts = masks.flatten().bincount(minlength=196) / 1000
    assert counts.min() > 0.02  # the corners, where few blocks reach
    assert counts.max() < 0.8
    assert len({tuple(row) for row in masks.tolist()}) > 990


def test_one_block_where_its_least_size_is_all() -> None:
    corners = set()
    for seed in range(50):
        places = hidden(Block(count=16, smallest=16, aspect=1.0), (14, 14), seed).nonzero()
        corner = places.min(0).values
        assert ((places - corner) < 4).all()
        corners.add(tuple(corner.tolist()))
    assert len(corners) > 30


def test_what_cannot_be_hidden() -> None:
    with pytest.raises(UserError, match="Of 4 places 4 cannot be hidden"):
        Block(count=4)((2, 2), generator(0))


@pytest.mark.parametrize("wrong", [{"aspect": 0.0}, {"aspect": 2.0}, {"count": -1}, {"smallest": 0}])
def test_shapes_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"aspect|positive"):
        Block(**wrong)
