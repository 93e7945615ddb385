import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.layers import Attention, ContinuousPositionBias, WindowBlock, Windows
from unveil.tokens import coordinates


@st.composite
def cuts(draw) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    grid = tuple(draw(st.integers(1, 7)) for _ in range(axes))
    size = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    return grid, size, tuple(draw(st.integers(0, extent - 1)) for extent in size)


def pairs(windows: Windows) -> list[tuple[int, int]]:
    """Which places of the grid meet, sorted; padding is nobody."""
    number = math.prod(windows.grid)
    cut = windows.cut(torch.arange(1, number + 1)[None, :, None].float())[0, ..., 0].long() - 1
    mask = cut.new_ones(*cut.shape, cut.shape[1], dtype=torch.bool) if windows.mask is None else windows.mask
    met = [(cut[w, i].item(), cut[w, j].item()) for w, i, j in mask.nonzero().tolist()]
    return sorted((i, j) for i, j in met if i >= 0 and (j >= 0 or i == j))


@given(cuts())
def test_those_meet_that_lie_in_one_window(cut) -> None:
    """Windows begin at the shift and every `size` places from there; what lies before the first is a window by itself."""
    grid, size, shift = cut
    shift = tuple(0 if g <= w else s for g, w, s in zip(grid, size, shift, strict=True))
    window = [
        tuple((p - s) // w for p, s, w in zip(place, shift, size, strict=True)) for place in coordinates(grid).tolist()
    ]
    expected = sorted((i, j) for i, one in enumerate(window) for j, other in enumerate(window) if one == other)
    assert pairs(Windows.over(grid, *cut[1:])) == expected


@given(cuts())
def test_padding_is_attended_to_by_nobody(cut) -> None:
    windows = Windows.over(*cut)
    real = windows.cut(torch.ones(1, math.prod(windows.grid), 1))[0, ..., 0] > 0
    if windows.mask is None:
        assert real.all()
    else:
        itself = torch.eye(real.shape[1], dtype=torch.bool)
        assert not (windows.mask & ~itself & ~real[:, None]).any()
        assert windows.mask.any(-1).all()  # a softmax over nothing is no number


@given(cuts())
def test_join_undoes_cut(cut) -> None:
    windows = Windows.over(*cut)
    x = torch.randn(2, math.prod(windows.grid), 3)
    assert torch.equal(windows.join(windows.cut(x)), x)


def test_windows_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Windows.over((4, 4), (4, 4), (4, 0))
    with pytest.raises(ValueError, match="do not fit"):
        Windows.over((4, 4), (4,), (0,))


def test_bias_is_the_perceptron_asked_about_every_pair() -> None:
    torch.manual_seed(0)
    bias = ContinuousPositionBias(2, heads=3, hidden=8)
    size = (2, 3)
    found = bias(size)
    places = coordinates(size).float()
    for i in range(6):
        for j in range(6):
            apart = places[i] - places[j]
            expected = bias.mlp(apart.sign() * (1 + apart.abs()).log())
            torch.testing.assert_close(found[:, i, j], expected)


def test_attention_by_cosines_does_not_see_lengths() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2, qkv_bias=False, cosine=True)
    x = torch.randn(2, 5, 8)
    x[:, :, :] = x / x.norm(dim=-1, keepdim=True)
    q, k, v = attention.projected(x)
    scores = (q @ k.transpose(-2, -1)) / (q.norm(dim=-1)[..., None] * k.norm(dim=-1)[..., None, :])
    with torch.no_grad():
        attention.tau.copy_(torch.tensor([0.5, 0.001]))
    scores = scores / torch.tensor([0.5, 0.01])[:, None, None]
    expected = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("grid", [(8, 4), (7, 3), (2, 5)])
def test_a_block_is_the_same_attention_over_all_places_with_the_rest_masked(grid) -> None:
    torch.manual_seed(0)
    block = WindowBlock(16, 2).eval()
    windows = Windows.over(grid, (4, 4), (2, 0))
    x = torch.randn(2, math.prod(grid), 16)
    allowed = torch.zeros(math.prod(grid), math.prod(grid), dtype=torch.bool)
    for i, j in pairs(windows):
        allowed[i, j] = True
    scores = block.bias(grid).masked_fill(~allowed, float("-inf"))
    y = x + block.norm1(block.attn(x, mask=scores))
    torch.testing.assert_close(block(x, windows), y + block.norm2(block.mlp(y)))
