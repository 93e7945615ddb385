"""Residual networks over images and clips: shapes, layers, inflation, two pathways."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import kit
from unveil import recipes
from unveil.encoders import Encoder, Inflation, SlowFast
from unveil.encoders.resnet import inflate
from unveil.errors import UserError
from unveil.fitting import fit
from unveil.masking import Mask
from unveil.recipe import Recipe
from unveil.recipes.c2d import c2d
from unveil.recipes.i3d import i3d
from unveil.recipes.resnet import resnet
from unveil.recipes.slowfast import slowfast

NETWORKS = ["resnet", "regnet", "c2d", "i3d", "slow", "nonlocal", "slowfast", "x3d", "r2plus1d"]


def encoder_of(name: str, **flags: object) -> tuple[Encoder, torch.Tensor]:
    objective = kit.small(recipes.find(name), **flags).objective.eval()
    ((key, encoder),) = objective.towers.items()
    return encoder, kit.batch_for(objective)[key]  # type: ignore[return-value]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_end_where_they_say(name: str) -> None:
    encoder, x = encoder_of(name)
    last = encoder(x, layer=encoder.depth)
    assert torch.equal(encoder(x, layer=-1).x, last.x)
    stages = encoder(x).stages
    assert torch.equal(last.x, stages[-1][0].x) or isinstance(encoder, SlowFast)
    with pytest.raises(UserError, match="layers 1 to"):
        encoder(x, layer=encoder.depth + 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_windows_are_the_maps_of_training(name: str) -> None:
    """At the crop of training there is one window; at that of a test there are several."""
    with torch.device("meta"):
        recipe = recipes.find(name)()
        window, encoder = recipe.objective.head.window, recipe.objective.encoder
        if window is None:
            assert name in ("resnet", "regnet")
            return
        crop, test = recipe.objective.head.window[1] * 32, recipe.data.evaluation[-1].size[0]
        frames = recipe.data.signal.clip.frames
        assert encoder(torch.empty(1, 3, frames, crop, crop)).grid == window
        assert encoder(torch.empty(1, 3, frames, test, test)).grid > window


def test_torchvisions_video_networks_take_the_mean_of_any_map() -> None:
    with torch.device("meta"):
        assert recipes.find("r2plus1d")("18").objective.head.window is None


@pytest.mark.parametrize("name", ["resnet", "slowfast"])
def test_masks_are_refused(name: str) -> None:
    encoder, x = encoder_of(name)
    mask = Mask(torch.zeros(len(x), 1, dtype=torch.int64), torch.ones(len(x), 1, dtype=torch.int64))
    with pytest.raises(UserError, match="masking"):
        encoder(x, mask)
    with pytest.raises(UserError, match="masking"):
        encoder.mask_grid(x)


def test_stages_are_maps_from_fine_to_coarse() -> None:
    encoder, x = encoder_of("slow")
    stages = encoder(x).stages
    assert [stage[0].grid for stage in stages] == [(4, 8, 8), (4, 4, 4), (4, 2, 2), (4, 1, 1)]


@pytest.mark.parametrize("how", ["mean", "centre"])
def test_an_inflated_kernel_sees_a_clip_that_stands_still_as_the_image(how: Inflation) -> None:
    weight, image = torch.randn(4, 3, 1, 3, 3), torch.randn(2, 3, 8, 8)
    still = image[:, :, None].expand(-1, -1, 9, -1, -1)
    grown = inflate(weight, 5, how)
    assert grown.shape == (4, 3, 5, 3, 3)
    found = nn.functional.conv3d(still, grown, padding=(2, 1, 1))
    expected = nn.functional.conv2d(image, weight[:, :, 0], padding=1)[:, :, None].expand_as(found)
    inside = slice(2, -2) if how == "mean" else slice(None)  # at the ends the padding is seen
    torch.testing.assert_close(found[:, :, inside], expected[:, :, inside], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", [c2d, i3d])
def test_a_network_of_images_begins_one_of_clips(recipe: Callable[..., Recipe]) -> None:
    """Kernels in the centre: a clip that stands still is classified as the image is."""
    torch.manual_seed(0)
    images = resnet("debug", num_classes=5).objective.eval()
    for name, buffer in images.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    for parameter in images.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1)
    clips = recipe("debug", num_classes=5, inflation="centre").objective.eval()
    report = fit(clips, images.state_dict(), "a run of images")
    assert not [*report.fresh, *report.unused, *report.replaced]
    convolutions = {name for name, p in clips.named_parameters() if p.ndim == 5}
    assert report.resized.keys() == convolutions
    assert "resized to the new shape" in "\n".join(report.sentences())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = images.logits({"image": image})  # type: ignore[operator]
        found = clips.logits({"video": image[:, :, None].expand(-1, -1, 4, -1, -1)})  # type: ignore[operator]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_kernels_of_another_size_are_not_inflated() -> None:
    encoder = i3d("debug").objective.encoder  # type: ignore[union-attr]
    state = {"stem.0.conv.weight": torch.zeros(8, 3, 5, 5)}
    assert encoder.adapt(state) == []
    assert state["stem.0.conv.weight"].shape == (8, 3, 5, 5)


def test_slow_frames_are_the_releases() -> None:
    encoder = slowfast("debug").objective.encoder  # type: ignore[union-attr]
    assert encoder.slow_frames(32) == [0, 4, 8, 13, 17, 22, 26, 31]
    assert encoder.slow_frames(4) == [0]


def test_slowfast_joins_its_pathways_on_the_slow_grid() -> None:
    encoder, x = encoder_of("slowfast", frames=8)
    x = torch.cat([x, x], dim=2)
    tokens = encoder(x)
    (slow, fast) = tokens.stages[-1]
    assert (slow.grid, fast.grid, tokens.grid) == ((2, 1, 1), (8, 1, 1), (2, 1, 1))
    torch.testing.assert_close(encoder.pool(tokens), torch.cat([slow.mean(), fast.mean()], dim=1))
    with pytest.raises(UserError, match="--frames 6"):
        encoder(x[:, :, :6])


def test_the_fast_pathway_does_not_see_the_slow_one() -> None:
    """Connections go one way (section 3.4)."""
    encoder, x = encoder_of("slowfast")
    x.requires_grad_()
    fast = encoder(x).stages[-1][1].x
    slow_weights = list(encoder.slow.parameters())  # type: ignore[union-attr]
    gradients = torch.autograd.grad(fast.square().sum(), slow_weights, allow_unused=True)
    assert all(gradient is None for gradient in gradients)
