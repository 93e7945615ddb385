import pytest
import torch

from unveil.layers import SpecAugment, seed_dropout


def blotted(layer: SpecAugment, samples: int = 200, shape: tuple[int, int] = (50, 16)) -> torch.Tensor:
    """Where something is put, [B, T, F] bool."""
    seed_dropout(layer, torch.arange(samples))
    return layer(torch.zeros(samples, 1, *shape))[:, 0] == 1


def runs(line: torch.Tensor) -> int:
    """Stretches of True."""
    return int((line[1:] & ~line[:-1]).sum() + line[0])


def test_one_stretch_and_one_band_shorter_than_the_limits() -> None:
    where = blotted(SpecAugment(20, 6, value=1.0).train())
    times, bands = where.all(2), where.all(1)
    assert torch.equal(where, times[:, :, None] | bands[:, None])
    assert max(runs(line) for line in [*times, *bands]) == 1
    assert times.sum(1).unique().tolist() == list(range(20))
    assert bands.sum(1).unique().tolist() == list(range(6))
    assert times.any(0).all()
    assert bands.any(0).all()


def test_no_longer_than_the_picture() -> None:
    where = blotted(SpecAugment(1000, 0, value=1.0).train())
    assert where.all(2).sum(1).max() < 50
    assert not where.all(1).any()


@pytest.mark.parametrize("layer", [SpecAugment(20, 6, value=1.0).eval(), SpecAugment(0, 0, value=1.0).train()])
def test_nothing_happens(layer: SpecAugment) -> None:
    assert not blotted(layer).any()


def test_a_sample_is_drawn_from_its_own_seed() -> None:
    layer = SpecAugment(20, 6, value=1.0).train()
    whole = blotted(layer, 8)
    seed_dropout(layer, torch.arange(3, 5))
    assert torch.equal(layer(torch.zeros(2, 1, 50, 16))[:, 0] == 1, whole[3:5])
