import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.tokens import Patchify, Tokens, coordinates, ravel, refine, resample, unravel

axes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(axes, st.integers(1, 3))
def test_join_undoes_patchify(sizes: list[tuple[int, int]], channels: int) -> None:
    patchify = Patchify(*(patch for patch, _ in sizes), channels=channels)
    x = torch.randn(2, channels, *(patch * cells for patch, cells in sizes))
    tokens = patchify(x)
    grid = tuple(cells for _, cells in sizes)
    assert tokens.grid == patchify.grid(x.shape) == grid
    assert tokens.x.shape == (2, math.prod(grid), patchify.width)
    assert torch.equal(patchify.join(tokens.x, tokens.grid), x)
    assert torch.equal(tokens.coords[0], coordinates(grid))


@settings(max_examples=40, deadline=None)
@given(axes, st.integers(1, 3), st.booleans(), st.data())
def test_some_patches_are_those_of_all(
    sizes: list[tuple[int, int]], channels: int, overlap: bool, data: st.DataObject
) -> None:
    stride = [max(1, patch - 1) if overlap else patch for patch, _ in sizes]
    patchify = Patchify(*(patch for patch, _ in sizes), channels=channels, stride=stride)
    extents = (patch + (cells - 1) * step for (patch, cells), step in zip(sizes, stride, strict=True))
    x = torch.randn(2, channels, *extents)
    places = st.integers(0, math.prod(cells for _, cells in sizes) - 1)
    count = data.draw(st.integers(0, 4))
    indices = torch.tensor([[data.draw(places) for _ in range(count)] for _ in range(2)], dtype=torch.int64)
    some, whole = patchify(x, indices), patchify(x).gather(indices)
    assert some.grid == whole.grid
    assert torch.equal(some.x, whole.x)
    assert torch.equal(some.coords, whole.coords)


def test_order_inside_a_patch_is_axes_then_channel() -> None:
    x = torch.arange(2 * 2 * 4 * 4).reshape(1, 2, 2, 4, 4)
    tokens = Patchify(2, 2, 2, channels=2)(x)
    values = [int(x[0, c, t, 2 + h, w]) for t in range(2) for h in range(2) for w in range(2) for c in range(2)]
    assert tokens.x[0, 2].tolist() == values
    assert tokens.coords[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_what_cannot_be_cut_is_refused() -> None:
    patchify = Patchify(4, 4, channels=3)
    with pytest.raises(UserError, match="cannot be cut"):
        patchify(torch.zeros(1, 3, 10, 8))
    with pytest.raises(UserError, match="cannot be cut"):
        patchify.grid((3,))
    with pytest.raises(ValueError, match="takes"):
        patchify(torch.zeros(1, 1, 8, 8))
    assert repr(patchify) == "Patchify(4, 4, channels=3)"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_ravel_undoes_unravel(grid: list[int]) -> None:
    indices = torch.arange(math.prod(grid))
    assert torch.equal(ravel(unravel(indices, grid), grid), indices)


def test_refine_covers_the_cells_of_a_coarse_place() -> None:
    indices = torch.tensor([[0, 3]])
    fine = refine(indices, (2, 2), (2, 4))
    assert fine.tolist() == [[0, 1, 6, 7]]
    assert refine(indices, (2, 2), (2, 2)) is indices
    with pytest.raises(ValueError, match="cannot be refined"):
        refine(indices, (2, 2), (3, 4))


def test_gather_keeps_places_with_features() -> None:
    x = torch.randn(2, 6, 5)
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    tokens = Tokens(x, coordinates((2, 3)).expand(2, -1, -1), (2, 3), valid=valid)
    kept = tokens.gather(torch.tensor([[1, 4], [0, 5]]))
    assert torch.equal(kept.x, torch.stack([x[0, [1, 4]], x[1, [0, 5]]]))
    assert kept.coords.tolist() == [[[0, 1], [1, 1]], [[0, 0], [1, 2]]]
    assert kept.valid is not None
    assert kept.valid.tolist() == [[True, True], [True, False]]
    assert kept.grid == (2, 3)


def test_sequence_and_split() -> None:
    tokens = Tokens(torch.randn(2, 6, 4), coordinates((6,)).expand(2, -1, -1), (6,), prefix=torch.randn(2, 1, 4))
    again = tokens.split(tokens.sequence() * 2)
    assert again.prefix is not None
    assert tokens.prefix is not None
    assert torch.equal(again.prefix, tokens.prefix * 2)
    assert torch.equal(again.x, tokens.x * 2)
    bare = tokens._replace(prefix=None)
    assert torch.equal(bare.split(bare.sequence()).x, tokens.x)


def test_padding_is_left_out() -> None:
    x = torch.tensor([[[1.0], [3.0], [99.0]]])
    tokens = Tokens(x, coordinates((3,))[None], (3,), valid=torch.tensor([[True, True, False]]))
    assert tokens.mean().item() == 2.0
    mask = tokens._replace(prefix=torch.zeros(1, 1, 1)).attention_mask()
    assert mask is not None
    assert mask.flatten().tolist() == [True, True, True, False]
    assert tokens._replace(valid=None).attention_mask() is None
    assert tokens._replace(valid=None).mean().item() == pytest.approx(103 / 3)


def test_maps_are_tokens() -> None:
    features = torch.randn(2, 5, 2, 3)
    tokens = Tokens.of_map(features)
    assert tokens.grid == (2, 3)
    assert torch.equal(tokens.map(), features)
    assert torch.equal(tokens.x[:, 4], features[:, :, 1, 1])


def test_places_of_absent_tokens() -> None:
    centres = torch.randn(1, 4, 3)
    indices = torch.tensor([[0, 3]])
    points = Tokens(torch.zeros(1, 4, 2), centres, (4,), places=centres).gather(torch.tensor([[1, 2]]))
    assert torch.equal(points.at(indices), centres[:, [0, 3]])
    assert Tokens(torch.zeros(1, 4, 2), coordinates((2, 2))[None], (2, 2)).at(indices).tolist() == [[[0, 0], [1, 1]]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=3))
def test_overlapping_patches_are_those_of_a_convolution(cuts: list[tuple[int, int, int]]) -> None:
    """Each patch, its place and its order: what a convolution of the same stride reads."""
    size = tuple(max(patch, step) for patch, step, _ in cuts)
    stride = tuple(step for _, step, _ in cuts)
    shape = tuple(patch + step * more for patch, step, (_, _, more) in zip(size, stride, cuts, strict=True))
    x = torch.randn(2, 3, *shape)
    patchify = Patchify(*size, channels=3, stride=stride)
    weight = torch.randn(5, 3, *size)
    convolve = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(cuts)]
    expected = convolve(x, weight, stride=stride)
    tokens = patchify(x)
    assert tokens.grid == patchify.grid(x.shape) == expected.shape[2:]
    assert torch.equal(tokens.coords[0], coordinates(tokens.grid))
    embedded = tokens.x @ weight.movedim(1, -1).flatten(1).T
    torch.testing.assert_close(embedded, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_strides_that_cannot_be_are_refused() -> None:
    for stride in ((4,), (0, 4), (5, 4)):
        with pytest.raises(ValueError, match="at a stride of"):
            Patchify(4, 4, channels=3, stride=stride)
    patchify = Patchify(4, 4, channels=3, stride=(2, 2))
    with pytest.raises(UserError, match="that begin every 2 × 2"):
        patchify(torch.zeros(1, 3, 9, 8))
    tokens = patchify(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="cannot be put together"):
        patchify.join(tokens.x, tokens.grid)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=3))
def test_a_resampled_embedding_of_an_enlarged_patch_is_the_same(axes: list[tuple[int, int]]) -> None:
    before, after = tuple(size for size, _ in axes), tuple(size + more for size, more in axes)
    patch, weight = torch.randn(2, 3, *before), torch.randn(5, 3 * math.prod(before))
    larger = patch
    for axis, size in enumerate(after, start=2):
        line = larger.movedim(axis, -1)
        flat = torch.nn.functional.interpolate(line.reshape(1, -1, line.shape[-1]), size=size, mode="linear")
        larger = flat.reshape(*line.shape[:-1], size).movedim(-1, axis)
    was = patch.movedim(1, -1).flatten(1) @ weight.T
    now = larger.movedim(1, -1).flatten(1) @ resample(weight, before, after).T
    torch.testing.assert_close(now, was, atol=1e-4, rtol=1e-4)


def test_images_weights_are_inflated_for_clips() -> None:
    weight = torch.randn(5, 3 * 16)
    inflated = resample(weight, (4, 4), (3, 4, 4)).unflatten(1, (3, -1))
    torch.testing.assert_close(inflated, weight[:, None].expand(-1, 3, -1) / 3)
