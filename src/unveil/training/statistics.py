"""Running statistics of batch norms: measured over many batches before they are used, and as they were before a step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unveil.layers import statistics_kept
from unveil.training import processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from unveil.recipe import Data


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Those that keep running statistics."""
    return [part for part in network.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]


class _Moments:
    """Mean and variance of what comes into a batch norm, over any number of batches and processes."""

    def __init__(self, channels: int):
        self.sums = torch.zeros(1 + 2 * channels, dtype=torch.float64)  # count; of values and of squares, by channel

    def add(self, x: Tensor) -> None:
        """[B,C,…]"""
        variance, mean = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
        count = x.numel() // x.shape[1]
        means = torch.cat([torch.ones_like(mean[:1]), mean, variance + mean.square()])
        self.sums += count * means.to("cpu", torch.float64)

    def result(self) -> tuple[Tensor, Tensor]:
        mean, square = (self.sums[1:] / self.sums[0]).chunk(2)
        return mean, (square - mean.square()).clamp(min=0)


@torch.no_grad()
def renew(
    fabric: Fabric, network: nn.Module, data: Data, steps: Generator[list[dict[str, Any]], None, None], count: int
) -> None:
    """Replace running statistics by those of `count` steps' training batches, of all processes together.

    A moving average lags behind the weights and hangs on the last few batches; these are the population's, each layer's input
    normalised by its own micro-batch as in training ("precise" batch norm; Wu and Johnson 2021, arXiv:2105.07576, section 3).
    Everything but the batch norms is in evaluation mode. Of several processes each has to call.

    Args:
        fabric: knows the device and the other processes.
        network: an objective; also one that is divided.
        data: of the recipe.
        steps: micro-batches of training, step by step; closed here.
        count: steps that are looked at.
    """
    from unveil.evaluation.features import evaluating

    norms = batch_norms(network)
    try:
        if not norms or count < 1:
            return
        with evaluating(network), statistics_kept(network):
            norms = [norm for norm in norms if norm.train().training]  # a frozen one stays as it is
            moments = [_Moments(norm.num_features) for norm in norms]
            hooks = [norm.register_forward_pre_hook(_into(m)) for norm, m in zip(norms, moments, strict=True)]
            try:
                for _ in range(count):
                    for batch in next(steps):
                        network(processes.on_device(fabric, data, batch))
            finally:
                for hook in hooks:
                    hook.remove()
    finally:
        steps.close()
    if fabric.world_size > 1:
        total: Any = fabric.all_reduce(torch.cat([m.sums for m in moments]), reduce_op="sum")
        for m, sums in zip(moments, total.split([len(m.sums) for m in moments]), strict=True):
            m.sums = sums
    for norm, m in zip(norms, moments, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = m.result()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _into(moments: _Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda norm, given: moments.add(given[0])


def copies(network: nn.Module) -> list[Tensor]:
    """The batch norms' buffers as they are now."""
    return [buffer.clone() for norm in batch_norms(network) for buffer in norm.buffers()]


def put_back(network: nn.Module, before: list[Tensor]) -> None:
    """Undo what forward passes did to the batch norms' buffers since `copies`."""
    now = [buffer for norm in batch_norms(network) for buffer in norm.buffers()]
    for buffer, value in zip(now, before, strict=True):
        buffer.copy_(value)


def told(network: nn.Module, samples: int, world: int, synchronised: bool) -> list[str]:
    """What the log says of batch norms, where there are any."""
    norms = batch_norms(network)
    if not norms:
        return []
    text = f"{len(norms)} batch norms: statistics of {samples} samples at a time (--loader.batch)"
    if world > 1 and synchronised:
        text += f", over {world} processes"
    elif world > 1:
        text += ", in each process its own; the first one's are kept (--sync-batch-norm true makes them common)"
    return [text]
