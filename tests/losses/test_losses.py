import math
from functools import partial

import pytest
import torch

from unveil.losses import binary_cross_entropy, classification, cross_entropy, mse, mse_of_linear, regression

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


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 1, 7), (40, 1000, 500)])
def test_mse_and_its_gradient_are_pytorchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(shape, generator=generator) for _ in range(2))
    own, theirs = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    loss, expected = mse(own, target), torch.nn.functional.mse_loss(theirs, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (loss * 3).backward()
    (expected * 3).backward()
    assert own.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-6, atol=0)


def test_mse_keeps_its_arguments_and_refuses_what_it_would_get_wrong() -> None:
    prediction, target = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 0.5])
    loss = mse(prediction, target)
    loss.backward(retain_graph=True)
    assert (prediction.tolist(), target.tolist()) == ([1.0, 2.0], [0.0, 0.5])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        (again,) = torch.autograd.grad(mse(prediction, target), prediction, create_graph=True)
        again.sum().backward()
    with pytest.raises(ValueError, match="shape"):
        mse(prediction, target[:, None])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_mse_of_numbers_that_are_none(value: float) -> None:
    assert not mse(torch.tensor([1.0, value]), torch.zeros(2)).isfinite()


def test_mse_under_autocast_is_as_without() -> None:
    prediction, target = torch.tensor([[1.003, 2.0]]).bfloat16(), torch.tensor([[0.1234567, 0.5]])
    with torch.autocast("cpu", torch.bfloat16):
        assert mse(prediction, target).item() == mse(prediction.float(), target).item()
    assert mse(prediction, target).item() == mse(prediction.float(), target).item()


def test_mse_is_one_graph_for_the_compiler() -> None:
    compiled = torch.compile(mse, backend="eager", fullgraph=True)
    prediction, target = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 0.5])
    compiled(prediction, target).backward()
    assert prediction.grad is not None
    assert prediction.grad.tolist() == [1.0, 1.5]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("piece", [1, 40, 2**21])
@pytest.mark.parametrize("frozen", [(), ("features",), ("weight", "bias")])
def test_mse_of_a_linear_layer_is_mse_of_its_predictions(
    monkeypatch, bias: bool, piece: int, frozen: tuple[str, ...]
) -> None:
    monkeypatch.setattr(regression, "PIECE_ON_CPU", piece)
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(6, 4, bias=bias)
    features = torch.randn(5, 3, 6, generator=generator, requires_grad="features" not in frozen)
    target = torch.randn(5, 3, 4, generator=generator)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name not in frozen)
    wanted = [x for x in (features, *layer.parameters()) if x.requires_grad]
    kept = target.clone(), features.detach().clone()
    own, expected = mse_of_linear(features, layer, lambda samples: target[samples]), mse(layer(features), target)
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(torch.autograd.grad(own * 3, wanted), torch.autograd.grad(expected * 3, wanted))
    assert torch.equal(target, kept[0])
    assert torch.equal(features, kept[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mse_of_a_linear_layer_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, features, target = (
        torch.nn.Linear(64, 32),
        torch.randn(4, 300, 64, requires_grad=True),
        torch.randn(4, 300, 32),
    )
    wanted = [features, *layer.parameters()]
    with torch.autocast("cpu", dtype):
        own, expected = mse_of_linear(features, layer, lambda samples: target[samples]), mse(layer(features), target)
    assert own.dtype == torch.float32
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=0)
    # A scale as fp16 needs, or its gradients vanish on the way that is compared with.
    gradients = zip(
        torch.autograd.grad(own * 2**14, wanted), torch.autograd.grad(expected * 2**14, wanted), strict=True
    )
    for of_own, of_expected in gradients:
        torch.testing.assert_close(of_own, of_expected, rtol=0.02, atol=0.01 * of_expected.abs().max().item())


def test_mse_of_a_linear_layer_keeps_no_predictions_and_says_what_does_not_fit() -> None:
    layer, features = torch.nn.Linear(2, 4000), torch.zeros(40, 50, 2, requires_grad=True)
    largest = 0

    def target(samples: slice) -> torch.Tensor:
        nonlocal largest
        wished = torch.ones(40, 50, 4000)[samples]
        largest = max(largest, wished.numel())
        return wished

    loss = mse_of_linear(features, layer, target)
    assert largest <= regression.PIECE_ON_CPU
    kept = [x.shape for x in loss.grad_fn.saved_tensors if x is not None]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert kept == [(40, 50, 2), (4000, 2), (4000,)]
    with torch.no_grad():
        assert mse_of_linear(features, layer, target).grad_fn is None
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(ValueError, match="targets of"):
        mse_of_linear(features, layer, lambda samples: torch.ones(40, 50, 3999)[samples])
