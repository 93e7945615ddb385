"""S3D: the shapes it goes through, its pooling, what it refuses."""

import pytest
import torch
from torch.nn import functional

from unveil.encoders import S3D
from unveil.errors import UserError
from unveil.layers.separable import MaxPool, SelfGate, SpaceToDepth
from unveil.masking import Mask


def clip(frames: int = 16, side: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, frames, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "flags", [{}, {"separable": False}, {"stem": "flat", "gates": True, "same": True}, {"stem": "blocks"}]
)
def test_time_is_halved_three_times_and_space_five_times(flags):
    encoder = S3D("debug", **flags).eval()
    tokens = encoder(clip())
    assert tokens.grid == (2, 2, 2)
    assert tokens.x.shape == (2, 8, encoder.width)
    assert [stage.grid for (stage,) in tokens.stages] == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]
    assert encoder.pool(tokens).shape == (2, encoder.width)
    assert encoder.depth == len(encoder.blocks) == 9


def test_it_stops_at_a_layer():
    encoder = S3D("debug").eval()
    assert torch.equal(encoder(clip(), layer=-1).x, encoder(clip()).x)
    assert torch.equal(encoder(clip(), layer=7).x, encoder(clip(), layer=-3).x)
    early = encoder(clip(), layer=2)
    assert early.grid == (8, 8, 8)
    assert torch.equal(early.x, encoder(clip()).stages[1][0].x)
    with pytest.raises(UserError, match="layers 1 to 9"):
        encoder(clip(), layer=10)


def test_the_first_and_last_frames_count_half():
    encoder = S3D("debug").eval()
    tokens = encoder(clip(frames=32))
    frames = tokens.map().mean((3, 4))
    assert frames.shape[2] == 4
    weights = torch.tensor([0.5, 1, 1, 0.5]) / 3
    torch.testing.assert_close(encoder.pool(tokens), (frames * weights).sum(2))
    plain = S3D("debug", pairs=False)
    torch.testing.assert_close(plain.pool(tokens), frames.mean(2))


def test_a_clip_of_one_frame_and_a_frame_of_any_size():
    encoder = S3D("debug").eval()
    assert encoder(clip(frames=1, side=32)).grid == (1, 1, 1)
    assert encoder(clip(frames=8, side=96)).grid == (1, 3, 3)
    with pytest.raises(UserError, match="even"):
        S3D("debug", stem="blocks")(clip(frames=15))


def test_it_takes_no_masks():
    mask = Mask(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.long))
    for call in (lambda: S3D("debug").mask_grid(clip()), lambda: S3D("debug")(clip(), mask)):
        with pytest.raises(UserError, match="whole clips"):
            call()
    with pytest.raises(UserError, match="no size 'XL'"):
        S3D("XL")


def test_space_to_depth_equals_a_convolution_of_the_clip():
    """A 4×4×4 kernel of stride 2 over pixels is a 2×2×2 kernel of stride 1 over blocks."""
    x = clip(4, 8)
    blocks = SpaceToDepth()
    weight = torch.randn(5, 3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    of_blocks = blocks(weight.unflatten(1, (3,)))  # the kernel cut as the clip is
    expected = functional.conv3d(x, weight, stride=2)
    torch.testing.assert_close(functional.conv3d(blocks(x), of_blocks), expected, rtol=1e-4, atol=1e-4)


def test_pooling_pads_as_said():
    x = torch.arange(1.0, 9).view(1, 1, 1, 1, 8).expand(1, 1, 1, 8, 8)
    assert MaxPool((1, 3, 3), (1, 2, 2))(x)[0, 0, 0, 0].tolist() == [2, 4, 6, 8]
    assert MaxPool((1, 3, 3), (1, 2, 2), same=True)(x)[0, 0, 0, 0].tolist() == [3, 5, 7, 8]
    assert MaxPool((2, 2, 2), (2, 2, 2))(x)[0, 0, :, 0].tolist() == [[2, 4, 6, 8]], (
        "one frame is shorter than the window"
    )


def test_a_gate_scales_channels_by_the_clips_own_means():
    gate = SelfGate(3)
    x = torch.rand(2, 3, 2, 4, 4)
    ratio = gate(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1, :1].expand_as(ratio))
    expected = torch.sigmoid(gate.linear(x.flatten(2).mean(2)))
    torch.testing.assert_close(ratio[:, :, 0, 0, 0], expected)
