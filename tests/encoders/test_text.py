"""The text transformer: what a word may see, where a text ends, what is left out."""

from __future__ import annotations

import pytest
import torch

from unveil.encoders import TextTransformer
from unveil.encoders.text import last_word
from unveil.errors import UserError
from unveil.masking import Mask

IDS = torch.tensor([[7, 3, 0, 4, 9, 0, 0, 0], [7, 9, 0, 0, 0, 0, 0, 0]])


def tower(**how) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer("debug", 10, 8, **how).eval()


def test_a_text_ends_at_its_last_id_that_is_no_padding() -> None:
    assert last_word(IDS).tolist() == [4, 1]
    assert last_word(torch.zeros(1, 3, dtype=torch.int64)).tolist() == [0]


def test_a_causal_tower_does_not_see_what_comes() -> None:
    changed = IDS.clone()
    changed[0, 3] = 5
    for causal in (True, False):
        encoder = tower(causal=causal)
        before, after = encoder(IDS).x[0], encoder(changed).x[0]
        assert torch.allclose(before[:3], after[:3], atol=1e-6) == causal
        assert not torch.allclose(before[3:], after[3:], atol=1e-6)


def test_padding_changes_nothing_where_it_cannot_be_seen() -> None:
    encoder = tower()
    longer = torch.cat([IDS[:, :5], torch.zeros(2, 1, dtype=torch.int64)], 1)
    torch.testing.assert_close(encoder.pool(encoder(IDS)), encoder.pool(encoder(longer)))


@pytest.mark.parametrize(("pool", "place"), [("last", 4), ("first", 0)])
def test_one_token_stands_for_the_text(pool, place: int) -> None:
    encoder = tower(pool=pool, causal=pool == "last")
    tokens = encoder(IDS)
    assert torch.equal(encoder.pool(tokens)[0], tokens.x[0, place])


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_masked_is_left_out(causal: bool) -> None:
    """Words that are hidden are as good as absent: those that stay see each other at their own places."""
    encoder = tower(causal=causal)
    visible = torch.tensor([[0, 3, 4], [0, 1, 2]])
    masked = torch.tensor([[1, 2, 5, 6, 7], [3, 4, 5, 6, 7]])
    tokens = encoder(IDS, Mask(visible, masked))
    assert tokens.x.shape == (2, 3, 32)
    assert torch.equal(encoder.pool(tokens)[0], tokens.x[0, 2])
    assert torch.equal(encoder.pool(tokens)[1], tokens.x[1, 1])
    other = IDS.clone()
    other[0, 1] = 8
    torch.testing.assert_close(encoder(other, Mask(visible, masked)).x, tokens.x)


def test_masks_that_hide_nothing_change_nothing() -> None:
    encoder = tower()
    everything = Mask(torch.arange(8).expand(2, -1), torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(encoder(IDS, everything).x, encoder(IDS).x)


def test_layers() -> None:
    encoder = tower()
    assert {encoder.layer_of(name) for name, _ in encoder.named_parameters()} == {0, 1, 2, 3}
    with pytest.raises(UserError, match="layers 1 to 2"):
        encoder(IDS, layer=3)


def test_too_long_a_text() -> None:
    with pytest.raises(UserError, match="9 tokens, where this network reads 8"):
        tower()(torch.ones(1, 9, dtype=torch.int64))
