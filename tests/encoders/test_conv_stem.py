"""Convolutions in the place of patches."""

import pytest
import torch
from torch import nn

from unveil.encoders import ConvStem, Dimensions, ViT
from unveil.layers import norm_of
from unveil.masking import Mask
from unveil.tokens import Positions

SHAPES = [((64, 48), (4, 3)), ((50, 33), (4, 3)), ((4, 64, 64), (2, 4, 4)), ((5, 32, 32), (3, 2, 2))]


@pytest.mark.parametrize(("shape", "grid"), SHAPES)
def test_tokens_lie_sixteen_pixels_apart(shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    stem = ConvStem(32, norm_of("batch", len(shape)), len(shape))
    tokens = stem(torch.randn(2, 3, *shape))
    assert tokens.grid == stem.grid((2, 3, *shape)) == grid
    assert tokens.x.shape == (2, torch.Size(grid).numel(), 32)


def test_a_transformer_takes_it() -> None:
    stem = ConvStem(32, norm_of("batch", 2))
    encoder = ViT(Dimensions(32, 2, 2), stem, Positions((2, 2), 32), embed=nn.Identity(), pool="class")
    x = torch.randn(2, 3, 32, 32)
    assert encoder.pool(encoder(x)).shape == (2, 32)
    assert {encoder.layer_of(name) for name, _ in encoder.named_parameters() if name.startswith("patchify")} == {0}
    seen = encoder(x, Mask(torch.tensor([[0, 3]] * 2), torch.tensor([[1, 2]] * 2)))
    assert seen.x.shape == (2, 2, 32)
