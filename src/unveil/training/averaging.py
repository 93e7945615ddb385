"""An exponential moving average of the weights, kept beside those that learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel


def averaged(objective: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that follows it at `update_parameters`: d × its own + (1 − d) × the network's.

    d is `decay`, but at the n-th update at most (1 + n) / (10 + n), as TensorFlow's moving averages have it: a short run would else be
    averaged with its random start. Buffers are averaged, too, but for counters, which are copied.
    """
    from torch.distributed.tensor import DTensor
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    def here(tensors: Any) -> list[torch.Tensor]:
        # A divided network's parameters are averaged piece by piece, each process its own; buffers are whole.
        return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]

    def move(old: Any, new: Any, count: Any) -> None:
        if old[0].is_floating_point():
            done = int(average.n_averaged)  # on the CPU, unlike `count`: reading it waits for nothing
            get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(here(old), here(new), count)
        else:  # a counter: its average, cut to a whole number, would never move
            for mine, its in zip(old, new, strict=True):
                mine.copy_(its)

    average = AveragedModel(objective, multi_avg_fn=move, use_buffers=True)
    return average
