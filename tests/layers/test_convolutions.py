"""Convolutional blocks: norms of every kind, blocks that begin as identities, similarities against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from unveil.layers import (
    ConvNorm,
    NonLocal,
    NormKind,
    Similarity,
    SqueezeExcite,
    basic,
    bottleneck,
    convolution,
    factorised,
    norm_of,
    recomputed,
)

CLIP = ((3, 1, 1), (1, 3, 3), (1, 1, 1))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", ["batch", "sync", "group", "frozen"])
def test_norms_of_every_kind(kind: NormKind, axes: int) -> None:
    norm = norm_of(kind, axes)(64).train()
    x = 3 + 2 * torch.randn(4, 64, *[5] * axes)
    if kind == "sync":  # computes among processes only
        assert isinstance(norm, nn.SyncBatchNorm)
        return
    y = norm(x)
    if kind == "frozen":
        assert not norm.training
        assert not any(parameter.requires_grad for parameter in norm.parameters())
        torch.testing.assert_close(y, x / math.sqrt(1 + 1e-5))
        norm.running_mean.fill_(3.0)
        torch.testing.assert_close(norm(x), (x - 3) / math.sqrt(1 + 1e-5))
    else:
        parts = y.transpose(0, 1) if kind == "batch" else y.unflatten(1, (32, 2)).flatten(0, 1)
        assert parts.flatten(1).mean(1).abs().max() < 1e-5
        torch.testing.assert_close(parts.flatten(1).std(1, correction=0), torch.ones(len(parts)), atol=1e-4, rtol=0)


def test_groups_that_do_not_divide_the_width() -> None:
    group = norm_of("group", 2)
    assert [group(width).num_groups for width in (64, 24, 7)] == [32, 8, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("zero_last", [True, False])
def test_a_bottleneck_begins_as_its_shortcut(zero_last: bool) -> None:
    block = bottleneck(16, 16, (1, 1, 1), inner=4, kernels=CLIP, norm=norm_of("batch", 3), zero_last=zero_last)
    x = torch.randn(2, 16, 4, 6, 6)
    assert torch.equal(block(x), x.relu()) == zero_last


def test_frozen_norms_are_not_silenced() -> None:
    """Their factors are a checkpoint's: zeros would stay."""
    block = bottleneck(16, 16, (1, 1, 1), inner=4, kernels=CLIP, norm=norm_of("frozen", 3))
    x = torch.randn(2, 16, 4, 6, 6)
    assert not torch.equal(block(x), x.relu())


def test_shortcuts_are_projected_where_shapes_change() -> None:
    norm = norm_of("batch", 2)
    kernels = ((1, 1), (3, 3), (1, 1))
    same = bottleneck(16, 16, (1, 1), inner=4, kernels=kernels, norm=norm)
    wider = bottleneck(16, 32, (1, 1), inner=4, kernels=kernels, norm=norm)
    coarser = basic(16, 16, (2, 2), kernel=(3, 3), norm=norm)
    x = torch.randn(1, 16, 8, 8)
    assert isinstance(same.shortcut, nn.Identity)
    assert isinstance(wider.shortcut, ConvNorm)
    assert wider(x).shape == (1, 32, 8, 8)
    assert coarser(x).shape == (1, 16, 4, 4)


def test_cardinality_divides_the_weights() -> None:
    kernels = ((1, 1), (3, 3), (1, 1))
    counts = [
        sum(
            p.numel()
            for p in bottleneck(
                64, 64, (1, 1), inner=32, kernels=kernels, norm=norm_of("batch", 2), groups=groups
            ).branch.b.conv.parameters()  # type: ignore[union-attr]
        )
        for groups in (1, 8, 32)
    ]
    assert counts == [9 * 32 * 32, 9 * 32 * 4, 9 * 32]


@pytest.mark.parametrize(("time_first", "first"), [(False, (1, 3, 3)), (True, (3, 1, 1))])
def test_factorised_convolutions(time_first: bool, first: tuple[int, ...]) -> None:
    conv = factorised(4, 8, (3, 3, 3), (2, 2, 2), norm=norm_of("batch", 3), middle=5, time_first=time_first)
    assert conv(torch.randn(1, 4, 8, 10, 10)).shape == (1, 8, 4, 5, 5)
    assert conv[0].conv.kernel_size == first  # type: ignore[union-attr]
    assert conv[0].conv.out_channels == 5  # type: ignore[union-attr]


def test_squeeze_scales_channels_alike_everywhere() -> None:
    squeeze = SqueezeExcite(8, 2, axes=3)
    x = torch.randn(2, 8, 3, 4, 4)
    factors = squeeze(x) / x
    assert ((factors > 0) & (factors < 1)).all()
    torch.testing.assert_close(factors, factors[:, :, :1, :1, :1].expand_as(factors))
    hidden = torch.relu(x.mean((2, 3, 4)) @ squeeze.fc1.weight.flatten(1).T + squeeze.fc1.bias)
    expected = torch.sigmoid(hidden @ squeeze.fc2.weight.flatten(1).T + squeeze.fc2.bias)
    torch.testing.assert_close(factors[:, :, 0, 0, 0], expected)


def similar(kind: Similarity, block: NonLocal, a: Tensor, b: Tensor) -> Tensor:
    """The formulas of section 3.2 for one place and all it looks at, written out: [C], [M, C] → weights [M]."""
    if kind == "gaussian":
        return torch.softmax(b @ a / math.sqrt(len(a)), 0)
    theta = block.theta.weight.flatten(1) @ a + block.theta.bias
    phi = b @ block.phi.weight.flatten(1).T + block.phi.bias
    if kind == "embedded":
        return torch.softmax(phi @ theta / math.sqrt(len(theta)), 0)
    if kind == "dot":
        return phi @ theta / len(b)
    pairs = torch.cat([theta.expand(len(b), -1), phi], 1)
    return (pairs @ block.weigh.weight[0]).relu() / len(b)


@pytest.mark.parametrize("kind", ["gaussian", "embedded", "dot", "concatenation"])
def test_non_local_blocks_are_their_formulas(kind: Similarity) -> None:
    torch.manual_seed(0)
    block = NonLocal(6, kind, norm_of("batch", 3)).eval()
    x = torch.randn(1, 6, 2, 4, 4)
    assert torch.equal(block(x), x)  # begins as the identity
    nn.init.ones_(block.norm.weight)  # type: ignore[arg-type]
    seen = nn.functional.max_pool3d(x, (1, 2, 2)).flatten(2)[0].T
    values = seen @ block.g.weight.flatten(1).T + block.g.bias
    rows = [similar(kind, block, place, seen) @ values for place in x.flatten(2)[0].T]
    out = torch.stack(rows) @ block.out.weight.flatten(1).T + block.out.bias
    expected = x + out.T.reshape(x.shape) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_recomputing_counts_a_batch_once() -> None:
    x = torch.randn(4, 3, 8, 8)
    norms, gradients = [], []
    for twice in (False, True):
        torch.manual_seed(0)
        block = ConvNorm(convolution(3, 4, (3, 3)), nn.BatchNorm2d(4), nn.ReLU()).train()
        (recomputed(block, x) if twice else block(x)).square().sum().backward()
        norms.append(block.norm)
        gradients.append(block.conv.weight.grad)  # type: ignore[union-attr]
    plain, again = norms
    assert again.num_batches_tracked == 1
    assert again.momentum == plain.momentum == 0.1
    assert torch.equal(again.running_mean, plain.running_mean)
    assert torch.equal(again.running_var, plain.running_var)
    assert not torch.equal(again.running_var, torch.ones(4))
    assert torch.equal(gradients[0], gradients[1])
