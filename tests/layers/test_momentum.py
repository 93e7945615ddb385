"""The momentum encoder, its queue and its shuffled statistics."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unveil.layers import Momentum, Queue, cosine_to_one, in_groups


def network() -> Any:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def following(original: nn.Module) -> Any:
    return Momentum(encoder=original)


def test_a_copy_that_learns_nothing_and_follows() -> None:
    original = network()
    momentum = following(original)
    assert not any(parameter.requires_grad for parameter in momentum.parameters())
    assert all(parameter.requires_grad for parameter in original.parameters())
    start = original[0].weight.detach().clone()
    with torch.no_grad():
        original[0].weight += 1
    momentum.follow(0.75, encoder=original)
    torch.testing.assert_close(momentum.encoder[0].weight, start + 0.25)
    momentum.follow(1.0, encoder=original)
    torch.testing.assert_close(momentum.encoder[0].weight, start + 0.25)
    momentum.follow(0.0, encoder=original)
    assert torch.equal(momentum.encoder[0].weight, original[0].weight)


def test_statistics_are_its_own() -> None:
    """They do not follow, and are of the batches that the copy sees: in training mode."""
    original = network()
    momentum = following(original)
    original(torch.randn(8, 3) + 5)
    momentum.follow(0.5, encoder=original)
    assert not momentum.encoder[1].running_mean.any()
    momentum.train().encoder(torch.randn(8, 3))
    assert momentum.encoder[1].running_mean.any()
    assert not torch.equal(momentum.encoder[1].running_mean, original[1].running_mean)
    momentum.equal(encoder=original)
    assert torch.equal(momentum.encoder[1].running_mean, original[1].running_mean)


def test_the_schedule_rises_to_one() -> None:
    assert cosine_to_one(0, 0.99) == pytest.approx(0.99)
    assert cosine_to_one(0.5, 0.99) == pytest.approx(0.995)
    assert cosine_to_one(1, 0.99) == 1
    assert cosine_to_one(0.25, 0.99) == pytest.approx(1 - 0.01 * (1 + math.cos(math.pi / 4)) / 2)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 12), max_size=6))
def test_the_queue_holds_the_last_keys(size: int, batches: list[int]) -> None:
    """The newest in the places of the oldest, in the order in which they came."""
    queue = Queue(size, 2)
    begun = queue.keys.clone()
    torch.testing.assert_close(begun.norm(dim=1), torch.ones(size))
    put = 0
    for count in batches:
        queue.put(torch.arange(put, put + count)[:, None].expand(-1, 2).float())
        put += count
    for place in range(size):
        last = [number for number in range(put) if number % size == place][-1:]
        expected = torch.full((2,), float(last[0])) if last else begun[place]
        assert torch.equal(queue.keys[place], expected)
    assert int(queue.count) == put
    assert queue.filled == min(1, put / size)
    assert set(queue.state_dict()) == {"keys", "count"}


class Seen(nn.Module):
    """Remembers what came in, and takes a part's mean away, as a batch norm does."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.parts.append(x)
        return x - x.mean(0)


@settings(max_examples=50, deadline=None)
@given(batch=st.integers(1, 17), groups=st.integers(1, 6), seed=st.integers(0, 99))
def test_groups_are_parts_of_the_batch_and_come_back_in_order(batch: int, groups: int, seed: int) -> None:
    x = torch.arange(batch, dtype=torch.float64)[:, None]
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    plain = in_groups(lambda part: part * 2, x, groups, order)
    assert torch.equal(plain, 2 * x)
    seen = Seen()
    result = in_groups(seen, x, groups, order)
    sizes = [len(part) for part in seen.parts]
    assert len(sizes) <= groups
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2 or len(sizes) == 1
    assert sorted(torch.cat(seen.parts).flatten().tolist()) == x.flatten().tolist()
    for part in seen.parts:
        rows = part.flatten().long()
        torch.testing.assert_close(result[rows], part - part.mean(0))


def test_shuffled_keys_have_other_company() -> None:
    """A query's part of the batch is not its key's: its statistics do not betray which key is its own."""
    x = torch.arange(8, dtype=torch.float64)[:, None]
    queries, keys = Seen(), Seen()
    in_groups(queries, x, 2)
    in_groups(keys, x, 2, torch.tensor([0, 2, 4, 6, 1, 3, 5, 7]))
    assert [part.flatten().tolist() for part in queries.parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [part.flatten().tolist() for part in keys.parts] == [[0, 2, 4, 6], [1, 3, 5, 7]]
