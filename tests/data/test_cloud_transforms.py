"""Rotation, scaling and jitter of clouds."""

from __future__ import annotations

import pytest
import torch

from unveil.data import Jitter, RandomRotation, RandomScale
from unveil.data.dataset import seeded

CLOUD = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("change", [RandomScale(), RandomRotation(), RandomRotation("any"), Jitter()], ids=repr)
def test_the_seed_decides(change):
    def changed(seed):
        with seeded(seed):
            return change(CLOUD)

    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))
    assert (changed(1).shape, changed(1).dtype) == (CLOUD.shape, CLOUD.dtype)


@pytest.mark.parametrize("axis", ["x", "y", "z", "any"])
def test_a_rotation_keeps_distances_and_its_axis(axis):
    with seeded(3):
        x = RandomRotation(axis)(CLOUD)
    torch.testing.assert_close(x.T @ x, CLOUD.T @ CLOUD, atol=1e-4, rtol=1e-4)
    matrix = torch.linalg.lstsq(CLOUD.T, x.T).solution
    assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-4)  # and no mirror image
    for number, name in enumerate("xyz"):
        assert torch.allclose(x[number], CLOUD[number], atol=1e-5) == (name == axis)


def test_rotations_about_any_axis_prefer_none():
    with seeded(0):
        x = torch.stack([RandomRotation("any")(torch.eye(3)) for _ in range(2000)])
    assert x.mean(0).abs().max() < 0.05
    torch.testing.assert_close(x.square().mean(0), torch.full((3, 3), 1 / 3), atol=0.03, rtol=0)


def test_scale_stretches_each_axis_and_moves():
    with seeded(0):
        for _ in range(20):
            x = RandomScale((0.5, 2.0), 0.1)(CLOUD)
            factor = x.std(1) / CLOUD.std(1)
            assert ((factor >= 0.5 - 1e-5) & (factor <= 2 + 1e-5)).all()
            assert len(factor.unique()) == 3
            assert (x - factor[:, None] * CLOUD).abs().max() <= 0.1 + 1e-4


def test_jitter_moves_little():
    with seeded(0):
        moved = (Jitter(0.01, 0.015)(CLOUD) - CLOUD).abs()
    assert 0 < moved.mean() < 0.01
    assert moved.max() <= 0.015 + 1e-6
