"""The perceptron between an encoder and a loss on features: projector and predictor (SimCLR, 2002.05709; BYOL, 2006.07733)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

#: Channels → a norm for vectors [B, C]; called with `affine=False` for one that learns no factors.
VectorNorm = Callable[..., nn.Module]


class Projector(nn.Sequential):
    """Linear layers, each but the last normalised and rectified: vectors [B, width] → [B, widths[-1]].

    The layers count through as those of the published networks do: linear 0, norm 1, ReLU 2, linear 3 …; without norms
    linear 0, ReLU 1, linear 2 …

    Args:
        width: of what comes in.
        widths: of the layers: hidden ones, then the result's.
        norm: makes norms; None for none, and then hidden layers have biases.
        last_norm: a norm without factors after the last layer (MoCo v3; SimSiam's projector).
        bias: of the last layer; "frozen" for one that is there, and learns nothing since the norm takes it away (SimSiam).
        constant_rate: it learns at the peak rate all the time; see `training.optimizer`.
    """

    def __init__(
        self,
        width: int,
        widths: Sequence[int],
        norm: VectorNorm | None = None,
        last_norm: bool = False,
        bias: bool | Literal["frozen"] = True,
        constant_rate: bool = False,
    ):
        if last_norm and norm is None:
            raise ValueError("a last norm has to be of some kind: give `norm`")
        layers: list[nn.Module] = []
        for out in widths[:-1]:
            layers.append(nn.Linear(width, out, bias=norm is None))
            if norm is not None:
                layers.append(norm(out))
            layers.append(nn.ReLU())
            width = out
        last = nn.Linear(width, widths[-1], bias=bool(bias))
        if bias == "frozen":
            last.bias.requires_grad_(False)
        layers.append(last)
        if last_norm and norm is not None:
            layers.append(norm(widths[-1], affine=False))
        super().__init__(*layers)
        self.constant_rate = constant_rate
