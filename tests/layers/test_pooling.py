"""Pooling attention: what it leaves alone, its relative positions in two forms, other grids than the native one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unveil.layers import PoolingAttention, PoolingBlock, RelativePositions, pooling
from unveil.layers.pooling import Pool, over_grid, reduced
from unveil.layers.relative import bias_of, channels_of

GRID, STRIDE = (2, 7, 6), (1, 2, 2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_reduced_grid_is_that_of_the_convolution() -> None:
    for size in range(1, 12):
        for stride in (1, 2, 4, 8):
            pooled = Pool(4, (3, 3), (stride, stride)).conv(noise(1, 4, size, size))
            assert tuple(pooled.shape[2:]) == reduced((size, size), (stride, stride))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_prefix_is_not_pooled(prefix: int) -> None:
    x = noise(2, prefix + 84, 8)
    pooled = over_grid(lambda maps: functional.max_pool3d(maps, (1, 2, 2)), x, GRID)
    assert torch.equal(pooled[:, :prefix], x[:, :prefix])
    maps = x[:, prefix:].reshape(2, *GRID, 8).permute(0, 4, 1, 2, 3)
    expected = functional.max_pool3d(maps.contiguous(), (1, 2, 2)).flatten(2).transpose(1, 2)
    assert torch.equal(pooled[:, prefix:], expected)


def test_all_heads_are_pooled_alike() -> None:
    pool = Pool(8, (3, 3, 3), STRIDE)
    x = noise(2, 1, 85, 8).expand(-1, 3, -1, -1)
    pooled = pool(x, GRID)
    assert pooled.shape == (2, 3, 1 + 2 * 4 * 3, 8)
    torch.testing.assert_close(pooled[:, 0], pooled[:, 2])


@pytest.mark.parametrize("prefix", [0, 1])
def test_channels_make_the_bias(prefix: int) -> None:
    positions = RelativePositions((2, 7, 6), 8)
    keys = reduced(GRID, (1, 4, 4))
    terms = positions(noise(2, 3, prefix + 84, 8), GRID, keys)
    more, pick = channels_of(terms, prefix)
    torch.testing.assert_close(more @ pick.T, bias_of(terms, prefix))


def test_the_bias_is_a_query_times_what_its_distance_says() -> None:
    """Along the longer axis of a grid one high; keys lie on every second place."""
    positions = RelativePositions((1, 6), 4)
    q = noise(1, 1, 6, 4)
    bias = bias_of(positions(q, (1, 6), (1, 3)), 0)[0, 0]
    along, across = positions.tables
    for i in range(6):
        for j in range(3):
            torch.testing.assert_close(bias[i, j], q[0, 0, i] @ (along[i - 2 * j + 4] + across[0]))


@pytest.mark.parametrize("residual", [False, True])
def test_both_forms_of_attention_agree(residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = PoolingAttention(12, 3, 24, q_stride=STRIDE, kv_stride=(1, 4, 4), relative=(2, 4, 3), residual=residual)
    x, found = noise(2, 85, 12).requires_grad_(), []
    for devices in (("cpu",), ()):
        monkeypatch.setattr(pooling, "FUSED", devices)
        y = attention(x, GRID)
        found.append([y, *torch.autograd.grad(y.square().mean(), [x, *attention.parameters()])])
    assert found[0][0].shape == (2, 1 + 2 * 4 * 3, 24)
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)


def test_tables_of_other_lengths_are_interpolated() -> None:
    small, large = RelativePositions((4, 4), 8), RelativePositions((4, 7), 8)
    state = {f"positions.{name}": value for name, value in small.state_dict().items()}
    before = dict(state)
    assert large.adapt(state, "positions.") == ["positions.tables.0"]  # the last axis
    assert torch.equal(state["positions.tables.1"], before["positions.tables.1"])
    large.load_state_dict({name.removeprefix("positions."): value for name, value in state.items()})
    q = noise(1, 2, 28, 8)
    for ours, loaded in zip(small(q, (4, 7), (4, 7)), large(q, (4, 7), (4, 7)), strict=True):
        torch.testing.assert_close(ours, loaded)


def test_an_images_pooling_pools_each_frame() -> None:
    image, clip = Pool(8, (3, 3), (2, 2)), Pool(8, (3, 3, 3), STRIDE)
    state = image.state_dict()
    assert clip.adapt(state) == ["conv.weight"]
    clip.load_state_dict(state)
    x = noise(1, 2, 84, 8)
    frames = [image(x[:, :, frame * 42 : (frame + 1) * 42], GRID[1:]) for frame in range(2)]
    torch.testing.assert_close(clip(x, GRID), torch.cat(frames, dim=2))


def test_kernels_of_their_strides() -> None:
    block = PoolingBlock(8, 8, 1, q_stride=(1, 2, 2), kv_stride=(1, 1, 1), kernel=0)
    assert block.attn.pool_q is not None
    assert block.attn.pool_q.conv.kernel_size == (1, 3, 3)
    assert block.attn.pool_k is None
    assert block(noise(1, 85, 8), GRID).shape == (1, 25, 8)
