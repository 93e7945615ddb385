import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unveil.errors import UserError
from unveil.layers import Attention, Block, Dropout, DropPath, preactivated, run_blocks, seed_dropout
from unveil.layers.initialise import by_depth, fan_in, truncated, xavier


@pytest.mark.parametrize("bias", [True, False, "qv"])
def test_attention_is_softmax_of_scaled_scores(bias) -> None:
    attention = Attention(8, 2, bias)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5, 8)
    wq, wk, wv = attention.qkv.weight.chunk(3)
    zero = torch.zeros(8)
    if bias == "qv":
        bq, bk, bv = attention.q_bias, zero, attention.v_bias
    else:
        bq, bk, bv = attention.qkv.bias.chunk(3) if bias else (zero, zero, zero)
    q, k, v = ((x @ w.T + b).reshape(2, 5, 2, 4).transpose(1, 2) for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    expected = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 8)
    expected = expected @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention(x, context=x), expected, rtol=1e-4, atol=1e-5)


def test_masked_keys_have_no_say() -> None:
    attention = Attention(8, 2)
    x = torch.randn(1, 4, 8)
    mask = torch.tensor([True, True, True, False])[None, None, None]
    changed = torch.cat([x[:, :3], x[:, 3:] + 5], dim=1)
    torch.testing.assert_close(attention(x, mask=mask)[:, :3], attention(changed, mask=mask)[:, :3])
    assert not torch.allclose(attention(x)[:, :3], attention(changed)[:, :3])
    bias = torch.zeros(1, 1, 4, 4, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(attention(x, mask=bias), attention(x, mask=mask))


def test_a_context_of_another_length() -> None:
    assert Attention(8, 2, "qv")(torch.randn(2, 1, 8), context=torch.randn(2, 7, 8)).shape == (2, 1, 8)
    assert Attention(8, 2, False)(torch.randn(2, 1, 8), context=torch.randn(2, 7, 8)).shape == (2, 1, 8)


def test_heads_divide_the_width() -> None:
    with pytest.raises(UserError, match="do not divide"):
        Attention(10, 3)


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    drop = DropPath(0.25)
    torch.manual_seed(0)
    y = drop(torch.ones(4000, 3))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert (y == y[:, :1]).all()
    assert torch.equal(drop.eval()(torch.ones(4, 3)), torch.ones(4, 3))
    assert "0.25" in repr(drop)


@pytest.mark.parametrize("kind", [Dropout, DropPath])
def test_a_sample_draws_from_its_own_seed(kind) -> None:
    network = nn.Sequential(kind(0.5), kind(0.5))
    seeds = torch.randint(2**62, (64,), generator=torch.Generator().manual_seed(0))
    x = torch.ones(64, 5, 3)
    seed_dropout(network, seeds)
    whole = network(x)
    assert torch.equal(network(x), whole)  # recomputed for the backward pass, it is the same
    seed_dropout(network, seeds[40:])
    assert torch.equal(network(x[40:]), whole[40:])
    seed_dropout(network, seeds + 1)
    assert not torch.equal(network(x), whole)
    with pytest.raises(ValueError, match="64 samples"):
        network(x[:10])


@given(
    rate=st.floats(0.05, 0.95), first=st.integers(-(2**63), 2**63 - 2**20), step=st.sampled_from([1, 2, 2**16, 7919])
)
@settings(max_examples=25)
def test_seeded_dropout_is_even_and_independent(rate, first, step) -> None:
    """Also for seeds that are neighbours: samples, values, modules and views are unrelated."""
    network = nn.ModuleList([Dropout(rate), Dropout(rate)])
    count = 256
    seed_dropout(network, first + step * torch.arange(count))
    kept = torch.stack([dropout(torch.ones(2 * count, 64)) > 0 for dropout in network]).float()
    views = kept.view(2, 2, count, 64)
    spread = math.sqrt(rate * (1 - rate))
    assert abs(kept.mean().item() - (1 - rate)) < 5 * spread / math.sqrt(kept.numel())
    for axis in range(4):
        centred = (views - (1 - rate)).transpose(0, axis)
        correlation = (centred[:-1] * centred[1:]).mean().item()
        assert abs(correlation) < 6 * spread**2 / math.sqrt(centred[1:].numel())


def test_dropout_without_seeds_draws_from_the_generator() -> None:
    dropout = Dropout(0.5)
    torch.manual_seed(0)
    first = dropout(torch.ones(100))
    assert not torch.equal(dropout(torch.ones(100)), first)
    torch.manual_seed(0)
    assert torch.equal(dropout(torch.ones(100)), first)


def test_the_two_branches_of_a_block_are_dropped_independently() -> None:
    block = Block(4, 2, drop_path=0.5)
    seed_dropout(block, torch.arange(1000))
    ones = torch.ones(1000, 1, 1)
    both = (block.drop_path1(ones) > 0) & (block.drop_path2(ones) > 0)
    assert both.float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_a_block_whose_branches_are_zero_is_the_identity() -> None:
    block = Block(8, 2, layer_scale=0.0)
    x = torch.randn(2, 5, 8)
    assert torch.equal(block(x), x)
    assert not torch.equal(Block(8, 2, layer_scale=0.1)(x), x)


def test_recomputing_gives_the_same_gradient() -> None:
    blocks = nn.ModuleList(Block(8, 2, drop_path=0.5) for _ in range(2))
    x = torch.randn(4, 5, 8)
    gradients = []
    for recompute in (False, True):
        blocks.zero_grad()
        torch.manual_seed(3)
        run_blocks(blocks, x, recompute=recompute).square().sum().backward()
        gradients.append([p.grad.clone() for p in blocks.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_xavier() -> None:
    layer = nn.Linear(100, 50)
    xavier(nn.Sequential(layer))
    assert layer.weight.abs().max().item() <= (6 / 150) ** 0.5
    assert layer.weight.std().item() == pytest.approx((2 / 150) ** 0.5, rel=0.05)
    assert not layer.bias.any()


def test_truncated() -> None:
    layer = nn.Linear(200, 100)
    truncated(layer)
    assert layer.weight.abs().max() <= 0.02
    assert layer.weight.abs().max() > 0.019
    assert not layer.bias.any()


def test_deeper_blocks_begin_smaller() -> None:
    encoder = nn.Module()
    encoder.blocks = nn.ModuleList(Block(16, 2) for _ in range(3))
    by_depth(encoder)
    for number, block in enumerate(encoder.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            assert layer.weight.abs().max() <= 0.02 / (2 * number) ** 0.5
            assert layer.weight.abs().max() > 0.015 / (2 * number) ** 0.5
        assert block.mlp.fc1.weight.abs().max() > 0.015


def test_fan_in_keeps_the_variance() -> None:
    torch.manual_seed(0)
    for layer, x in (
        (nn.Conv2d(64, 256, 3), torch.randn(2, 64, 16, 16)),
        (nn.Linear(500, 256), torch.randn(64, 500)),
    ):
        fan_in(layer)
        assert layer(x).std().item() == pytest.approx(1, abs=0.05)


def test_a_preactivated_block_adds_its_branch_with_a_gain() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    block = preactivated(8, 8, (3, 3, 3, 1), gain=0.25)
    branch = x
    for conv in (part for part in block.branch if isinstance(part, nn.Conv2d)):
        branch = conv(branch.relu())
    torch.testing.assert_close(block(x), x + 0.25 * branch)
    assert preactivated(8, 12, (3, 3, 3, 1), gain=1)(x).shape == (2, 12, 5, 5)


@pytest.mark.parametrize("masked", [None, "keys", "pairs"])
def test_the_last_tokens_alone_are_what_they_are_among_all(masked):
    block, x = Block(16, 2).double(), torch.randn(3, 9, 16, dtype=torch.double)
    mask = None if masked is None else torch.rand(3, 1, 1 if masked == "keys" else 9, 9) > 0.3
    if mask is not None:
        mask[..., 0] = True
    torch.testing.assert_close(block(x, mask, 4), block(x, mask)[:, -4:])
    torch.testing.assert_close(run_blocks([block, block], x, mask, last=4), run_blocks([block, block], x, mask)[:, -4:])
