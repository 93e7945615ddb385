"""The perceptron over maximum and mean."""

from __future__ import annotations

import torch

from unveil.heads import PerceptronHead
from unveil.tokens import Tokens


def tokens(valid: torch.Tensor | None = None) -> Tokens:
    x = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(0))
    return Tokens(x, torch.zeros(3, 7, 3), (7,), valid=valid)


def test_sees_the_largest_and_the_mean():
    torch.manual_seed(0)
    head = PerceptronHead(6, 4, hidden=(5,)).eval()
    t = tokens()
    both = torch.cat([t.x.amax(1), t.x.mean(1)], dim=1)
    torch.testing.assert_close(head(t), head.linear(head.layers(both)))
    assert [p.shape[0] for name, p in head.named_parameters() if name.endswith("bias")] == [5, 4]  # norm, answer


def test_tokens_that_are_not_there_do_not_count():
    torch.manual_seed(0)
    head = PerceptronHead(6, 4).eval()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[:, 5:] = False
    t = tokens()
    fewer = t._replace(x=t.x[:, :5], coords=t.coords[:, :5])
    torch.testing.assert_close(head(t._replace(valid=valid)), head(fewer))
