import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.layers import RelativePositionBias
from unveil.tokens import coordinates

GRIDS = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def numbered(grid, class_token=True) -> RelativePositionBias:
    """Every row of the table says its own number."""
    bias = RelativePositionBias(grid, 2, class_token)
    with torch.no_grad():
        bias.table.copy_(torch.arange(len(bias.table), dtype=torch.float32)[:, None].expand(-1, 2))
    return bias


@given(GRIDS)
def test_a_row_for_every_distance(grid) -> None:
    places = coordinates(grid)
    rows = numbered(grid, class_token=False)(places[None], grid, 0)[0, 0]
    number = math.prod(grid)
    seen = {}
    for i in range(number):
        for j in range(number):
            apart = tuple((places[i] - places[j]).tolist())
            assert seen.setdefault(apart, rows[i, j].item()) == rows[i, j].item()
    assert len(set(seen.values())) == len(seen) == math.prod(2 * size - 1 for size in grid)
    assert sorted(seen.values()) == list(range(len(seen)))


@given(GRIDS)
def test_the_class_token_has_three_rows_of_its_own(grid) -> None:
    bias = numbered(grid)
    scores = bias(coordinates(grid)[None], grid, 1)
    assert scores.shape == (1, 2, 1 + math.prod(grid), 1 + math.prod(grid))
    last = len(bias.table)
    assert (scores[0, 1, 0, 1:] == last - 3).all()
    assert (scores[0, 1, 1:, 0] == last - 2).all()
    assert scores[0, 1, 0, 0] == last - 1
    assert (scores[0, 1, 1:, 1:] < last - 3).all()


def test_some_of_the_places_have_the_scores_they_have_among_all() -> None:
    """Also where every sample has others, as when masked tokens are dropped."""
    grid = (3, 4)
    bias = numbered(grid)
    whole = bias(coordinates(grid)[None], grid, 1)[0]
    chosen = torch.tensor([[0, 5, 11], [2, 3, 7]])
    some = bias(coordinates(grid)[chosen], grid, 1)
    for sample, places in zip(some, chosen, strict=True):
        keep = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + places])
        assert torch.equal(sample, whole[:, keep][:, :, keep])


def test_another_grid_interpolates_distances_and_leaves_the_class_token_alone() -> None:
    bias = RelativePositionBias((4, 4), 1)
    with torch.no_grad():  # a score that falls with the distance
        steps = (torch.arange(7.0) - 3).square()
        bias.table[:49, 0] = -(steps[:, None] + steps).flatten()
        bias.table[49:, 0] = torch.tensor([5.0, 6.0, 7.0])
    scores = bias(coordinates((8, 8))[None], (8, 8), 1)[0, 0]
    assert scores.shape == (65, 65)
    assert (scores[0, 1:] == 5).all()
    assert (scores[1:, 0] == 6).all()
    assert scores[0, 0] == 7
    inside = scores[1:, 1:]
    torch.testing.assert_close(inside, inside.T, rtol=0, atol=1e-4)
    assert (inside.argmax(dim=1) == torch.arange(64)).all()
    # Two places of the finer grid are one of the coarser.
    assert inside[0, 2].item() == pytest.approx(-1, abs=0.25)


def test_a_table_saved_for_another_grid_is_interpolated() -> None:
    saved = RelativePositionBias((4, 4), 2)
    torch.nn.init.normal_(saved.table)
    loaded = RelativePositionBias((6, 5), 2)
    loaded.load_state_dict(saved.state_dict())
    places = coordinates((6, 5))[None]
    torch.testing.assert_close(loaded(places, (6, 5), 1), saved(places, (6, 5), 1))
    assert loaded.native.tolist() == [6, 5]
    state = saved.state_dict()
    assert saved.adapt(state) == []
    assert RelativePositionBias((6, 5), 2, class_token=False).adapt(dict(state)) == []  # has no place for three rows
    assert loaded.adapt({}) == []


def test_a_class_token_it_does_not_know_is_refused() -> None:
    for class_token, prefix in ((True, 0), (False, 1), (True, 2)):
        with pytest.raises(ValueError, match="class tokens"):
            RelativePositionBias((2, 2), 2, class_token)(coordinates((2, 2))[None], (2, 2), prefix)
