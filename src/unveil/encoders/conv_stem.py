"""A stem of convolutions in front of a transformer (Xiao et al. 2021, 2106.14881; MoCo v3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from unveil.layers import ConvNorm, Norm, convolution, he
from unveil.tokens import Plain, Tokens


class ConvStem(Plain, nn.Module):
    """Four convolutions of stride 2, normalised and rectified, then one of a single pixel: tokens 16 pixels apart.

    Stands in the place of `Patchify`, with embedded tokens for patches: `ViT(size, ConvStem(…), positions, embed=nn.Identity())`.

    Args:
        width: of the tokens; the convolutions have an eighth, a quarter, half and all of it.
        norm: channels → norm, for maps of so many axes as the signal has.
        axes: 2 for images; 3 for clips, whose frames are paired by the first convolution.
    """

    STRIDE = 16

    def __init__(self, width: int, norm: Norm, axes: int = 2):
        super().__init__()
        self.width = width
        self.strides = (*(2,) * (axes - 2), self.STRIDE, self.STRIDE)
        steps, before = [], 3
        for number, out in enumerate((width // 8, width // 4, width // 2, width)):
            kernel = (*(3 if number == 0 else 1 for _ in range(axes - 2)), 3, 3)
            stride = (*(2 if number == 0 else 1 for _ in range(axes - 2)), 2, 2)
            steps.append(ConvNorm(convolution(before, out, kernel, stride), norm(out), nn.ReLU()))
            before = out
        self.convs = nn.Sequential(*steps)
        self.proj = {2: nn.Conv2d, 3: nn.Conv3d}[axes](width, width, 1)
        he(self)

    def extra_repr(self) -> str:
        return f"strides={self.strides}"

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many tokens along each axis for a signal [..., *S]."""
        extents = shape[-len(self.strides) :]
        return tuple(-(-extent // stride) for extent, stride in zip(extents, self.strides, strict=True))

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tokens:
        """Signal [B, 3, *S] → tokens with x [B, N, width]; those at `indices` [B, n] alone."""
        tokens = Tokens.of_map(self.proj(self.convs(x)))
        return tokens if indices is None else tokens.gather(indices)
