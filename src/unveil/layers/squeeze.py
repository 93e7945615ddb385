"""What X3D adds to a bottleneck: squeeze and excitation, swish."""

from __future__ import annotations

from torch import Tensor, nn

from unveil.layers.convolution import CONVOLUTIONS


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the means of all channels (Hu et al. 2018).

    Args:
        width: of the map.
        hidden: of the two-layer perceptron.
        axes: of the map.
    """

    def __init__(self, width: int, hidden: int, axes: int):
        super().__init__()
        self.axes = tuple(range(2, 2 + axes))
        # Pointwise convolutions, as in the papers: then a layout of channels last stays one.
        self.fc1 = CONVOLUTIONS[axes](width, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = CONVOLUTIONS[axes](hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, *S] → [B, C, *S]."""
        return x * self.fc2(self.act(self.fc1(x.mean(self.axes, keepdim=True)))).sigmoid()


class Swish(nn.Module):
    """x · sigmoid(x) (Ramachandran et al. 2017).

    In two operations: the fused one rounds otherwise, which a rectifier that follows turns into another gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()
