import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import UserError
from unveil.masking import Block, ByLength, Cube, Mask, Masker, Random, Tube, draw

grids = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
ratios = st.floats(0, 0.99)
seeds = st.integers(0, 2**62)


def one(masker: Masker, grid: tuple[int, ...], seed: int) -> Mask:
    return masker(grid, torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(grids, ratios, seeds, st.sampled_from([Block, Cube, Random, Tube]))
def test_a_mask_is_a_sorted_partition_and_repeats(grid, ratio, seed, kind) -> None:
    if kind is not Random and ratio * grid[1] * grid[2] >= grid[1] * grid[2] - 0.5:
        ratio = 0.0  # nothing would be left to see, which blocks refuse
    mask = one(kind(ratio), grid, seed)
    for part in mask:
        assert torch.equal(part, part.sort().values)
        assert part.dtype == torch.int64
    assert torch.equal(torch.cat(mask).sort().values, torch.arange(math.prod(grid)))
    again = one(kind(ratio), grid, seed)
    assert torch.equal(mask.visible, again.visible)


@settings(max_examples=60, deadline=None)
@given(grids, ratios, seeds)
def test_random_keeps_as_many_as_published(grid, ratio, seed) -> None:
    assert len(one(Random(ratio), grid, seed).visible) == int(math.prod(grid) * (1 - ratio))


@settings(max_examples=60, deadline=None)
@given(grids, ratios, seeds)
def test_a_tube_hides_the_same_places_in_every_frame(grid, ratio, seed) -> None:
    frame = grid[1] * grid[2]
    masked = one(Tube(ratio), grid, seed).masked.reshape(grid[0], -1)
    assert masked.shape[1] == int(ratio * frame)
    assert torch.equal(masked % frame, masked[:1].expand_as(masked))
    assert torch.equal(masked // frame, torch.arange(grid[0])[:, None].expand_as(masked))


@given(grids, seeds)
def test_a_grid_of_one_place_in_time_has_a_masker_of_its_own(grid, seed) -> None:
    still, moving = Tube(0.5), Random(0.75)
    mask = one(ByLength(still, moving), grid, seed)
    wanted = one(still if grid[0] == 1 else moving, grid, seed)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(mask, wanted, strict=True))


def test_published_counts() -> None:
    assert len(one(Random(0.75), (14, 14), 0).visible) == 49
    assert len(one(Random(0.9), (8, 14, 14), 0).visible) == 156
    assert len(one(Tube(0.9), (8, 14, 14), 0).visible) == 160


def test_every_place_is_masked_equally_often() -> None:
    mask = draw(Random(0.75), (4, 4), torch.arange(2000))
    counts = mask.masked.flatten().bincount(minlength=16) / 2000
    assert (counts - 0.75).abs().max() < 0.05


def test_each_sample_draws_from_its_own_seed() -> None:
    together = draw(Random(0.5), (4, 4), torch.tensor([5, 6, 7]))
    alone = draw(Random(0.5), (4, 4), torch.tensor([7]))
    assert together.visible.shape == together.masked.shape == (3, 8)
    assert torch.equal(together.visible[2:], alone.visible)
    assert not torch.equal(together.visible[0], together.visible[1])


def test_a_mask_is_not_the_permutation_that_the_seed_itself_gives() -> None:
    # The sample's crop is drawn from the same seed.
    plain = torch.randperm(16, generator=torch.Generator().manual_seed(5))[:8].sort().values
    assert not torch.equal(draw(Random(0.5), (4, 4), torch.tensor([5])).visible[0], plain)


@pytest.mark.parametrize("kind", [Block, Cube, Random, Tube])
@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_ratios_are_checked(kind, ratio: float) -> None:
    with pytest.raises(UserError, match="masking ratio"):
        kind(ratio)


def test_repr_names_the_ratio() -> None:
    assert repr(Tube(0.9)) == "Tube(ratio=0.9)"
