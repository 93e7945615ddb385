"""Networks that follow others: the momentum encoder (He et al. 2020, MoCo; Tarvainen, Valpola 2017)."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Momentum(nn.Module):
    """Copies of networks, under their names, that learn nothing and are moved towards the originals.

    Parameters follow. Buffers do not: running statistics are the copies' own, of the batches that they see, as in MoCo. So the
    copies go into training mode with what they are part of.

    Args:
        networks: name → network.
    """

    def __init__(self, **networks: nn.Module):
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, deepcopy(network).requires_grad_(False))

    @torch.no_grad()
    def follow(self, momentum: float, **networks: nn.Module) -> None:
        """copy ← momentum · copy + (1 − momentum) · network, for every parameter (MoCo, eq. 2).

        Args:
            momentum: 1 leaves the copies as they are, 0 makes them equal.
            networks: the originals, by name.
        """
        for name, network in networks.items():
            pairs = zip(self.get_submodule(name).parameters(), network.parameters(), strict=True)
            copies, originals = zip(*((_here(copy), _here(original)) for copy, original in pairs), strict=True)
            torch._foreach_mul_(copies, momentum)
            torch._foreach_add_(copies, originals, alpha=1 - momentum)

    @torch.no_grad()
    def equal(self, **networks: nn.Module) -> None:
        """Make the copies equal to the originals, running statistics included."""
        for name, network in networks.items():
            self.get_submodule(name).load_state_dict(network.state_dict())


def _here(parameter: nn.Parameter) -> Tensor:
    # Of a network divided among processes each moves its own piece; copies and originals are divided alike.
    return parameter.to_local() if isinstance(parameter, DTensor) else cast(Tensor, parameter)


def cosine_to_one(progress: float, start: float) -> float:
    """A momentum that rises from `start` to 1 over the training, along half a cosine (BYOL, 2006.07733, 3.3; MoCo v3)."""
    return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * progress))
