import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.evaluation import neighbours as module
from unveil.evaluation.neighbours import Neighbours, neighbours


def expected(gallery: torch.Tensor, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, rows = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    return values[:, :k], rows[:, :k]


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [1, 5, 200])
@pytest.mark.parametrize(
    "levels", [2, 1000]
)  # with few levels most products are equal: the earlier row is the better one
def test_as_sorting_all_products(rows, k, levels, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    generator = torch.Generator().manual_seed(rows * k)
    gallery, queries = (torch.randint(levels, (n, 3), generator=generator).double() for n in (150, 4))
    found, wanted = neighbours(gallery, queries, k), expected(gallery, queries, k)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5000), k=st.integers(1, 40), levels=st.sampled_from([2, 50, 10**6]), seed=st.integers(0, 9))
def test_the_largest_of_groups_are_the_largest(n, k, levels, seed):
    k = min(n, k)
    x = torch.randint(levels, (3, n), generator=torch.Generator().manual_seed(seed)).float()
    values, places = module._topk(x, k)
    assert torch.equal(values, x.topk(k, 1).values)
    assert torch.equal(x.gather(1, places), values)
    assert all(len(set(row)) == k for row in places.tolist())


def test_blocks_that_come_one_by_one():
    gallery, queries = torch.randn(90, 8).double(), torch.randn(3, 8).double()
    best = Neighbours(queries, 4)
    for block in gallery.split(13):
        best.look(block)
    assert torch.equal(best.rows, expected(gallery, queries, 4)[1])


def test_no_more_products_at_once_than_said(monkeypatch):
    monkeypatch.setattr(module, "PRODUCTS", 64)
    seen = []
    merge = Neighbours._merge
    monkeypatch.setattr(
        Neighbours, "_merge", lambda self, products: (seen.append(products.numel()), merge(self, products))
    )
    neighbours(torch.randn(100, 2), torch.randn(5, 2), 3)
    assert max(seen) <= 64
    assert sum(seen) == 500


def test_none():
    for n, m in ((0, 2), (5, 0)):
        products, rows = neighbours(torch.randn(n, 2), torch.randn(m, 2), 3)
        assert products.shape == rows.shape
        assert len(rows) == m
