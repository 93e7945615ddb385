"""Recomputation moves running statistics once, and changes no gradient."""

import pytest
import torch
from torch import nn

from unveil.layers.recompute import recomputed, statistics_kept


def network(momentum: float | None = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU(), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_move_once(momentum):
    x = torch.randn(2, 3, 8, 8)
    plain, again = network(momentum), network(momentum)
    for step in range(2):
        plain(x + step).square().sum().backward()
        recomputed(again, x + step).square().sum().backward()
    assert plain[1].num_batches_tracked == 2
    for a, b in zip(plain.buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_kept_statistics_are_the_same_tensors():
    part = network()
    before = list(part.buffers())
    values = [buffer.clone() for buffer in before]
    with statistics_kept(part):
        part(torch.randn(2, 3, 8, 8))
        assert part[1].num_batches_tracked == 1
    assert all(a is b for a, b in zip(part.buffers(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(part.buffers(), values, strict=True))
