"""The moving average of weights."""

import pytest
import torch
from torch import nn

from unveil.training.averaging import averaged


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9])
def test_a_short_run_is_not_averaged_with_its_start(decay):
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay)
    expected = None
    for step in range(60):
        network.weight.data.fill_(float(step))
        average.update_parameters(network)
        d = min(decay, (1 + step) / (10 + step))
        expected = float(step) if expected is None else d * expected + (1 - d) * step
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_counters_are_copied():
    network = nn.BatchNorm1d(2)
    average = averaged(network, 0.9)
    for _ in range(3):
        network(torch.randn(4, 2))
        average.update_parameters(network)
    assert average.module.num_batches_tracked.item() == 3
