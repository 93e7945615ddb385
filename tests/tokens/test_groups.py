"""Points in space: distances, neighbours, farthest points, groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from unveil.errors import UserError
from unveil.tokens import Groups, farthest, groups, nearest, squared_distances, taken


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


sizes = st.integers(1, 30)


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, st.sampled_from([1, 3, 8, 9, 20]), st.integers(0, 99))
def test_distances_are_the_naive_ones(n, m, axes, seed):
    a, b = cloud(2, n, axes, seed=seed), cloud(2, m, axes, seed=seed + 1)
    naive = torch.tensor([[[(p - q).square().sum() for q in v] for p in u] for u, v in zip(a, b, strict=True)])
    torch.testing.assert_close(squared_distances(a, b), naive, atol=1e-4, rtol=1e-4)


def test_distances_of_few_axes_lose_no_digits_far_from_the_origin():
    a = cloud(1, 40, 3) + 1000
    torch.testing.assert_close(
        squared_distances(a, a), squared_distances(a.double(), a.double()).float(), atol=1e-6, rtol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, st.sampled_from([3, 12]), st.integers(1, 8), st.integers(0, 99), st.sampled_from([1, 50, 10**6]))
def test_the_nearest_are_those_of_a_tree(n, m, axes, k, seed, stripe):
    queries, points = cloud(2, n, axes, seed=seed), cloud(2, m, axes, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "STRIPE", stripe)
        found = nearest(queries, points, k)
    k = min(k, m)
    assert found.shape == (2, n, k)
    for i in range(2):
        expected, _ = cKDTree(points[i].numpy()).query(queries[i].numpy(), k)
        distances = (queries[i][:, None] - points[i][found[i]]).norm(dim=-1)
        np.testing.assert_allclose(distances.numpy(), expected.reshape(n, k), atol=1e-4)
        assert all(len(set(row)) == k for row in found[i].tolist())


def naive_farthest(points: list[list[float]], count: int) -> list[int]:
    chosen = [0]
    while len(chosen) < count:
        gaps = [min(sum((p - q) ** 2 for p, q in zip(a, points[c], strict=True)) for c in chosen) for a in points]
        chosen.append(gaps.index(max(gaps)))
    return chosen


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 99))
def test_farthest_points_are_the_naive_ones(n, count, seed):
    points = cloud(3, n, 3, seed=seed).double()
    count = min(n, count)
    assert farthest(points, count).tolist() == [naive_farthest(one.tolist(), count) for one in points]


def test_farthest_points_of_equal_ones():
    """All in one place: the first again and again, no error."""
    assert farthest(torch.zeros(2, 5, 3), 3).tolist() == [[0, 0, 0]] * 2
    twice = cloud(1, 4, 3).repeat(1, 2, 1)
    assert farthest(twice, 4).sort().values.tolist() == [[0, 1, 2, 3]]


def test_taken_and_its_gradient():
    x = cloud(2, 5, 4).requires_grad_()
    indices = torch.tensor([[[0, 0], [4, 1]], [[2, 2], [2, 3]]])
    y = taken(x, indices)
    assert torch.equal(y, torch.stack([x[i][indices[i]] for i in range(2)]))
    weight = cloud(*y.shape, seed=1)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    expected = torch.zeros_like(x)
    for i in range(2):
        expected[i].index_add_(0, indices[i].flatten(), weight[i].flatten(0, 1))
    torch.testing.assert_close(gradient, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 60), st.integers(0, 99))
def test_groups(size, more, seed):
    n = size + more
    x = cloud(2, 3, n, seed=seed)
    tokens = Groups(size)(x)
    count = n // size
    assert (tokens.grid, tokens.x.shape, tokens.coords.shape) == ((count,), (2, count, 3 * size), (2, count, 3))
    for i in range(2):
        points = x[i].T
        assert torch.equal(tokens.coords[i], points[farthest(points[None], count)[0]])
        for centre, raw in zip(tokens.coords[i], tokens.x[i], strict=True):
            group = raw.view(size, 3)
            assert torch.equal(group[0], centre)  # of all points it is nearest to itself
            reach = (group - centre).norm(dim=1).max()
            assert ((points - centre).norm(dim=1) < reach - 1e-6).sum() < size
    kept = torch.tensor([[0], [count - 1]])
    assert torch.equal(tokens.gather(kept).coords[1, 0], tokens.at(kept)[1, 0])


def test_a_sample_does_not_depend_on_its_neighbours():
    x = cloud(3, 3, 40)
    whole, alone = Groups(8)(x), Groups(8)(x[1:2])
    assert torch.equal(whole.x[1:2], alone.x)
    assert torch.equal(whole.coords[1:2], alone.coords)


def test_fewer_points_than_a_group():
    with pytest.raises(UserError, match="A cloud of 5 points has fewer than one group"):
        Groups(6)(cloud(1, 3, 5))
    with pytest.raises(ValueError, match="takes"):
        Groups(2)(cloud(1, 4, 5))
