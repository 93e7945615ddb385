"""A region of space, hidden whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.masking import Neighbourhood, PlacedMasker, Random, draw


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.99), st.integers(0, 99))
def test_what_is_hidden_lies_about_one_place(number, ratio, seed):
    places = torch.randn(number, 3, generator=torch.Generator().manual_seed(seed))
    visible, masked = Neighbourhood(ratio).among(places)((number,), torch.Generator().manual_seed(seed))
    assert torch.cat([visible, masked]).sort().values.tolist() == list(range(number))
    assert len(masked) == int(number * ratio)
    assert visible.tolist() == sorted(visible.tolist())
    assert masked.tolist() == sorted(masked.tolist())
    if len(masked) and len(visible):
        distances = (places[masked, None] - places).norm(dim=-1)
        radius = [row[masked].max() < row[visible].min() for row in distances]
        assert any(radius)


def test_draws_for_each_sample_by_its_own_places_and_seed():
    places = torch.randn(3, 12, 3, generator=torch.Generator().manual_seed(0))
    seeds = torch.tensor([5, 6, 7])
    masker = Neighbourhood(0.5)
    assert isinstance(masker, PlacedMasker)
    assert not isinstance(Random(0.5), PlacedMasker)
    mask = draw(masker, (12,), seeds, places)
    alone = draw(masker, (12,), seeds[1:2], places[1:2])
    assert torch.equal(mask.masked[1:2], alone.masked)
    assert len({tuple(row) for row in mask.masked.tolist()}) > 1
    middles = {tuple(draw(masker, (12,), torch.tensor([n]), places[:1]).masked[0].tolist()) for n in range(40)}
    assert len(middles) > 4
    with pytest.raises(ValueError, match="where the tokens lie"):
        draw(masker, (12,), seeds)


def test_ratio():
    with pytest.raises(UserError, match="ratio"):
        Neighbourhood(1.0)
