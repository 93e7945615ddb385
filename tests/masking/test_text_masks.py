"""Padding goes first, then words; the ends of a text stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.masking import TextMasker, draw_words


@given(
    context=st.integers(2, 40),
    data=st.data(),
    ratio=st.floats(0, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_stays(context: int, data, ratio: float, seed: int) -> None:
    length = data.draw(st.integers(1, context))
    mask = TextMasker(ratio)(length, context, torch.Generator().manual_seed(seed))
    keep = max(2, int(context * (1 - ratio)))
    visible, masked = mask.visible.tolist(), mask.masked.tolist()
    assert sorted(visible + masked) == list(range(context))
    assert visible == sorted(visible)
    assert masked == sorted(masked)
    assert len(visible) == keep
    assert {0, length - 1} <= set(visible)
    words = [place for place in visible if place < length]
    padding = [place for place in visible if place >= length]
    assert len(words) == min(length, keep)
    assert padding == list(range(length, length + len(padding)))


def test_each_text_has_its_own_draw() -> None:
    seeds = torch.tensor([1, 2, 3])
    lengths = torch.tensor([9, 9, 4])
    mask = draw_words(TextMasker(0.5), lengths, 10, seeds)
    assert mask.visible.shape == (3, 5)
    assert torch.equal(draw_words(TextMasker(0.5), lengths[1:], 10, seeds[1:]).visible, mask.visible[1:])
    assert mask.visible[2].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="--ratio"):
        TextMasker(1.0)
