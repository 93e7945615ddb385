"""One perceptron for all projectors and predictors."""

from typing import Any

import pytest
import torch
from torch import nn

from unveil.heads import Projector
from unveil.layers import norm_of


def kinds(projector: nn.Module) -> list[str]:
    return [type(part).__name__ for part in projector.children()]


def test_the_published_ones() -> None:
    batch = norm_of("batch", axes=1)
    assert kinds(Projector(8, [4])) == ["Linear"]  # MoCo v1
    v2: Any = Projector(8, [8, 4])
    assert kinds(v2) == ["Linear", "ReLU", "Linear"]
    assert all(v2[i].bias is not None for i in (0, 2))
    v3: Any = Projector(8, [6, 6, 4], batch, last_norm=True, bias=False)
    assert kinds(v3) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert all(part.bias is None for part in v3 if isinstance(part, nn.Linear))
    assert not v3[-1].affine
    simsiam: Any = Projector(8, [8, 8, 4], batch, last_norm=True, bias="frozen")
    assert not simsiam[6].bias.requires_grad
    assert simsiam[6].weight.requires_grad
    assert simsiam[0].bias is None


def test_shapes_and_norms_that_need_no_batch() -> None:
    projector: Any = Projector(8, [16, 4], norm_of("group", axes=1), last_norm=True)
    x = torch.randn(3, 8)
    assert projector(x).shape == (3, 4)
    torch.testing.assert_close(projector(x)[1], projector(x[1:2])[0])
    assert not projector[-1].affine


def test_a_last_norm_has_to_be_of_some_kind() -> None:
    with pytest.raises(ValueError, match="give `norm`"):
        Projector(8, [4], last_norm=True)
