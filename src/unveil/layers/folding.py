"""Networks that compute the same with less: batch norms folded into convolutions, channels last in memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unveil.layers.recompute import statistics_kept

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def folded(network: nn.Module, *inputs: Any) -> nn.Module:
    """A copy for inference: every batch norm that follows a convolution alone is part of that convolution.

    Which one follows which is seen in a pass. A batch norm that something else comes into as well stays as it is.

    Args:
        network: left as it is; its running statistics are used, whatever its mode.
        inputs: of its `forward`, of any size; shows what calls what.

    Raises:
        ValueError: a convolution's result goes elsewhere, too: the copy would not be equal.
    """
    network = copy.deepcopy(network).eval()
    pairs = _pairs(network, inputs)
    before = network(*inputs)
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], nn.Identity())
    _compare(before, network(*inputs))
    return network


def _pairs(network: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Convolutions and the batch norms that their results go into, each called once."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is held, so that no other gets its id
    calls: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Module, nn.Module]] = []

    def after(module: nn.Module, given: Any, result: Any) -> None:
        calls[module] += 1
        made[id(result)] = (module, result)

    def before(module: nn.Module, given: Any) -> None:
        calls[module] += 1
        source = made.get(id(given[0]))
        if source is not None:
            found.append((source[0], module))

    hooks = [part.register_forward_hook(after) for part in network.modules() if isinstance(part, _Convolution)]
    hooks += [part.register_forward_pre_hook(before) for part in network.modules() if isinstance(part, _BatchNorm)]
    try:
        with statistics_kept(network):
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [(a, b) for a, b in found if calls[a] == calls[b] == 1 and b.running_mean is not None]


def _compare(before: Any, after: Any) -> None:
    x, y = (found if isinstance(found, Tensor) else found[0] for found in (before, after))
    if not torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(x.abs().max())):
        raise ValueError("folding changes what the network computes: some convolution's result is used twice")


def channels_last(network: nn.Module, axes: Collection[int] = (2, 3)) -> nn.Module:
    """Put weights of convolutions into channels-last memory, in place: convolutions then compute in it, and equal results.

    Whether that is faster depends on the machine: docs/performance.md.

    Args:
        network: whose convolutions are meant.
        axes: over how many axes they go: 2 for pictures, 3 for clips.
    """
    for part in network.modules():
        if isinstance(part, _Convolution) and part.weight.ndim - 2 in axes:
            form = torch.channels_last if part.weight.ndim == 4 else torch.channels_last_3d
            # `contiguous` would leave strides of a kernel of one as they are, and gradients have those of the form.
            part.weight.data = torch.empty_like(part.weight.data, memory_format=form).copy_(part.weight.data)
    return network
