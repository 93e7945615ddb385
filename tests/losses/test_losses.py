import math
from functools import partial

import pytest
import torch

from unveil.losses import binary_cross_entropy, classification, cross_entropy, mse

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def test_mse_is_computed_in_float32() -> None:
    loss = mse(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([0.0, 0.0]))
    assert loss.dtype == torch.float32
    assert loss.item() == 2.5


def test_hard_and_soft_labels_agree() -> None:
    hard = torch.tensor([0, 2])
    soft = torch.nn.functional.one_hot(hard, 3).float()
    assert cross_entropy(LOGITS, hard).item() == pytest.approx(cross_entropy(LOGITS, soft).item())
    smoothed = soft * 0.9 + 0.1 / 3
    assert cross_entropy(LOGITS, hard, smoothing=0.1).item() == pytest.approx(cross_entropy(LOGITS, smoothed).item())
    assert cross_entropy(LOGITS, soft, smoothing=0.1).item() == pytest.approx(cross_entropy(LOGITS, smoothed).item())


def test_class_weights() -> None:
    weight = torch.tensor([1.0, 1.0, 0.0])
    only_first = cross_entropy(LOGITS, torch.tensor([0, 2]), weight=weight)
    # The mean is over samples, whatever their weights: then it does not matter which of them share a micro-batch.
    assert only_first.item() == pytest.approx(cross_entropy(LOGITS[:1], torch.tensor([0])).item() / 2)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    kept = binary_cross_entropy(LOGITS, labels, weight=weight) * 3
    assert kept.item() == pytest.approx((binary_cross_entropy(LOGITS[:, :2], labels[:, :2]) * 2).item())


def test_several_labels() -> None:
    loss = binary_cross_entropy(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    assert loss.item() == pytest.approx(math.log(2))
    certain = torch.tensor([[50.0]])
    assert binary_cross_entropy(certain, torch.ones(1, 1), smoothing=0.2).item() == pytest.approx(5.0, rel=1e-3)


def test_the_loss_of_a_classifier() -> None:
    assert classification(multi_label=True) is binary_cross_entropy
    loss = classification(multi_label=False, smoothing=0.1)
    assert isinstance(loss, partial)
    expected = cross_entropy(LOGITS, torch.tensor([0, 1]), smoothing=0.1)
    assert torch.equal(loss(LOGITS, torch.tensor([0, 1])), expected)
