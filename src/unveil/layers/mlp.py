"""The transformer's two-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear, GELU (exact, unless another `act` is given), linear; to another width where `out` is given."""

    def __init__(self, width: int, hidden: int, out: int | None = None, act: Callable[[], nn.Module] = nn.GELU):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), an approximation of GELU (OpenAI's CLIP)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()
