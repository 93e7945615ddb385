"""Normalisation of feature maps, chosen by name, for images and clips alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Self

from torch import nn

#: "batch": statistics of the batch here; "sync": of all processes together; "group": of 32 groups of channels of each
#: sample; "frozen": the statistics and factors of a checkpoint, fixed.
NormKind = Literal["batch", "sync", "group", "frozen"]
#: Channels → a norm for that many.
Norm = Callable[[int], nn.Module]

GROUPS = 32  # Wu, He 2018, section 4.1


class _Frozen:
    """A batch norm that neither learns nor counts: an affine function."""

    def _freeze(self: nn.Module) -> None:  # pyright: ignore[reportGeneralTypeIssues]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__(width, eps)
        self._freeze()


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__(width, eps)
        self._freeze()


def group_norm(width: int, groups: int = GROUPS, eps: float = 1e-5, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation (Wu, He 2018); of a width that the groups do not divide, as many as do."""
    return nn.GroupNorm(math.gcd(width, groups), width, eps, affine)


def silence(norm: nn.Module) -> nn.Module:
    """Begin a norm's factors at zero, so that its branch adds nothing (Goyal et al. 2017); not those of a frozen one."""
    weight = norm.weight
    if isinstance(weight, nn.Parameter) and weight.requires_grad:
        nn.init.zeros_(weight)
    return norm


def norm_of(kind: NormKind, axes: int, eps: float = 1e-5, momentum: float = 0.1) -> Norm:
    """What makes norms of a kind.

    Args:
        kind: see `NormKind`.
        axes: of the maps: 2 for images, 3 for clips; 1 for vectors, all of whose channels are one group.
        eps: added to the variance.
        momentum: share of a batch in the running statistics.
    """
    if kind == "group":
        return partial(group_norm, groups=1 if axes == 1 else GROUPS, eps=eps)
    if kind == "sync":
        return partial(nn.SyncBatchNorm, eps=eps, momentum=momentum)
    if kind == "frozen":
        return partial({2: FrozenBatchNorm2d, 3: FrozenBatchNorm3d}[axes], eps=eps)
    return partial({1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes], eps=eps, momentum=momentum)
