"""The distance of two clouds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from unveil.losses import chamfer
from unveil.tokens import groups


def clouds(n: int, m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, generator=generator), torch.randn(2, m, 3, generator=generator)


def naive(a: torch.Tensor, b: torch.Tensor, over: str) -> torch.Tensor:
    found = []
    for u, v in zip(a, b, strict=True):
        there = torch.stack([min((p - q).square().sum() for q in v) for p in u])
        back = torch.stack([min((p - q).square().sum() for q in u) for p in v])
        found.append(there.mean() + back.mean() if over == "mean" else there.sum() + back.sum())
    return torch.stack(found).mean()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99), st.sampled_from(["mean", "sum"]))
def test_is_the_naive_one_with_its_gradients(n, m, seed, over):
    a, b = (x.requires_grad_() for x in clouds(n, m, seed))
    ours, theirs = chamfer(a, b, over), naive(a, b, over)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, (a, b)), torch.autograd.grad(theirs, (a, b)), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("stripe", [1, 777, 1 << 20])
def test_is_the_trees_however_it_is_cut(monkeypatch, stripe):
    monkeypatch.setattr(groups, "STRIPE", stripe)
    a, b = clouds(150, 90)
    trees = sum(
        np.square(cKDTree(v.numpy()).query(u.numpy())[0]).mean()
        + np.square(cKDTree(u.numpy()).query(v.numpy())[0]).mean()
        for u, v in zip(a, b, strict=True)
    )
    assert chamfer(a, b).item() == pytest.approx(trees / 2, rel=1e-5)


def test_of_a_cloud_with_itself_in_another_order():
    a, _ = clouds(50, 1)
    assert chamfer(a, a[:, torch.randperm(50)]).item() == 0


def test_no_table_of_all_distances_is_held(monkeypatch):
    """20,000 × 20,000 distances would be 1.6 GB."""
    largest = 0
    plain = groups.squared_distances

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        found = plain(a, b)
        largest = max(largest, found.numel())
        return found

    monkeypatch.setattr(groups, "squared_distances", watched)
    a = torch.rand(1, 20_000, 3, requires_grad=True)
    chamfer(a, torch.rand(1, 20_000, 3)).backward()
    assert largest <= groups.STRIPE
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_half_precision_is_computed_in_full():
    a, b = clouds(30, 20)
    found = chamfer(a.bfloat16(), b.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, chamfer(a.bfloat16().float(), b.bfloat16().float()))
