"""Maps larger than those of training: the mean of the answers for every window."""

import torch

from unveil.heads import ConvolutionalHead
from unveil.tokens import Tokens


def mean(tokens: Tokens) -> torch.Tensor:
    return tokens.mean()


def test_a_map_as_in_training_is_pooled() -> None:
    head = ConvolutionalHead(6, 3, window=(2, 4, 4)).eval()
    x = torch.randn(2, 6, 2, 4, 4)
    assert torch.equal(head(Tokens.of_map(x), mean), head.linear(Tokens.of_map(x).mean()))


def test_a_larger_map_is_answered_for_every_window() -> None:
    torch.manual_seed(0)
    head = ConvolutionalHead(6, 3, window=(2, 4, 4), std=1.0).eval()
    x = 3 * torch.randn(2, 6, 2, 5, 6)
    windows = [x[..., i : i + 4, j : j + 4] for i in range(2) for j in range(3)]
    expected = torch.stack([head.linear(window.mean((2, 3, 4))).softmax(-1) for window in windows]).mean(0)
    found = head(Tokens.of_map(x), mean)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.softmax(-1), expected)
    assert not torch.allclose(head.linear(x.mean((2, 3, 4))).softmax(-1), expected, atol=1e-3)
    head.train()
    assert torch.equal(head(Tokens.of_map(x), mean), head.linear(Tokens.of_map(x).mean()))


def test_several_labels_are_averaged_each_by_itself() -> None:
    head = ConvolutionalHead(6, 3, window=(4, 4), multi_label=True, std=1.0).eval()
    x = torch.randn(2, 6, 4, 6)
    windows = [x[..., j : j + 4] for j in range(3)]
    expected = torch.stack([head.linear(window.mean((2, 3))).sigmoid() for window in windows]).mean(0)
    torch.testing.assert_close(head(Tokens.of_map(x), mean).sigmoid(), expected)


def test_a_shorter_clip_has_a_shorter_window() -> None:
    head = ConvolutionalHead(6, 3, window=(8, 2, 2)).eval()
    assert head(Tokens.of_map(torch.randn(2, 6, 4, 3, 3)), mean).shape == (2, 3)


def test_a_hidden_layer_comes_after_the_pooling() -> None:
    head = ConvolutionalHead(6, 3, hidden=5).eval()
    x = torch.randn(2, 6, 2, 2)
    assert head.hidden is not None
    expected = head.linear(head.hidden(x.mean((2, 3))).relu())
    torch.testing.assert_close(head(Tokens.of_map(x), mean), expected)
