"""The multiscale transformer: grids and widths, masks, signals of other sizes, images' weights for clips."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unveil.encoders import MVIT, MVITV2, MViT, Scales, scales
from unveil.errors import UserError
from unveil.fitting import fit
from unveil.masking import Mask
from unveil.tokens import Positions, coordinates

TINY = Scales(8, 1, (1, 2, 2))
CLIP = (4, 64, 64)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def mvit(shape: tuple[int, ...] = CLIP, size: Scales = TINY, **options: Any) -> MViT:
    torch.manual_seed(0)
    return MViT(size, shape, **options).eval()


def test_sizes() -> None:
    assert scales("B", MVIT) == scales("S", MVITV2) == scales("96x1x1-2-11-2", MVIT)
    assert scales(str(MVITV2["L"]), MVITV2) == MVITV2["L"]
    for wrong in ("XL", "96x5x1-2", "96x1x1-0"):
        with pytest.raises(UserError, match="size"):
            scales(wrong, MVITV2)


@pytest.mark.parametrize("widen", ["mlp", "attention"])
def test_the_grid_shrinks_and_the_width_grows(widen: Any) -> None:
    encoder = mvit(widen=widen)
    tokens = encoder(noise(2, 3, *CLIP))
    assert tokens.grid == (2, 4, 4)
    assert tokens.x.shape == (2, 32, 32)
    assert (encoder.width, encoder.depth) == (32, 5)
    assert tokens.prefix is not None
    assert torch.equal(encoder.pool(tokens), tokens.prefix[:, 0])
    assert torch.equal(tokens.coords[1], coordinates((2, 4, 4)))
    assert [stage[0].grid for stage in tokens.stages] == [(2, 16, 16), (2, 8, 8)]
    assert [encoder(noise(1, 3, *CLIP), layer=layer).grid[1] for layer in (1, 2, -1)] == [16, 8, 4]
    with pytest.raises(UserError, match="layers 1 to 5"):
        encoder(noise(1, 3, *CLIP), layer=6)


@pytest.mark.parametrize("shape", [(5, 50, 70), (4, 96, 64), (1, 32, 32)])
def test_any_size_of_signal(shape: tuple[int, ...]) -> None:
    positions = Positions(MViT.grid(CLIP), 8, "learned")
    tokens = mvit(positions=positions)(noise(1, 3, *shape))
    assert tokens.grid == tuple(-(-side // step) for side, step in zip(shape, (2, 16, 16), strict=True))
    assert tokens.x.isfinite().all()


def test_images() -> None:
    encoder = mvit((64, 64), class_token=False, pool="mean", kv_stride=4)
    tokens = encoder(noise(2, 3, 64, 64))
    assert tokens.prefix is None
    torch.testing.assert_close(encoder.pool(tokens), tokens.x.mean(1))
    with pytest.raises(ValueError, match="class token"):
        mvit((64, 64), class_token=False)


def test_a_norm_of_what_is_pooled() -> None:
    """MaskFeat's fine-tuning; what stops early, in a narrower stage, has no norm."""
    encoder, x = mvit(pool="mean", norm="pooled"), noise(2, 3, *CLIP)
    tokens = encoder(x)
    assert encoder.norm is None
    assert encoder.fc_norm is not None
    assert torch.equal(encoder(x, layer=-1).x, tokens.x)
    torch.testing.assert_close(encoder.pool(tokens), encoder.fc_norm(tokens.x.mean(1)))
    early = encoder(x, layer=1)
    assert torch.equal(encoder.pool(early), early.x.mean(1))
    assert encoder.layer_of("fc_norm.bias") == 6


def hidden(x: Tensor, indices: Tensor, cell: int) -> Tensor:
    """Other pixels under a mask drawn in cells of two frames and so many pixels."""
    changed = x.clone()
    columns = x.shape[-1] // cell
    for sample, places in enumerate(indices.tolist()):
        for place in places:
            t, rest = divmod(place, columns**2)
            i, j = (n * cell for n in divmod(rest, columns))
            changed[sample, :, 2 * t : 2 * t + 2, i : i + cell, j : j + cell] = 9.0
    return changed


@pytest.mark.parametrize(("strides", "mask_stride", "grid"), [(None, None, 4), ((2, 1), 4, 8)])
def test_masked_places_are_replaced(strides: Any, mask_stride: int | None, grid: int) -> None:
    """Patches overlap: only what no visible patch sees may change. MaskFeat predicts on a finer grid than it masks."""
    encoder = mvit(masked="replace", strides=strides, mask_stride=mask_stride)
    x = noise(2, 3, *CLIP)
    assert encoder.mask_grid(x) == (2, 4, 4)
    everything = Mask(torch.empty(2, 0, dtype=torch.int64), torch.arange(32).expand(2, -1))
    blind = encoder(x, everything)
    assert blind.grid == (2, grid, grid)
    torch.testing.assert_close(encoder(hidden(x, everything.masked, 16), everything).x, blind.x)
    some = Mask(torch.arange(8, 32).expand(2, -1), torch.arange(8).expand(2, -1))
    assert not torch.allclose(encoder(x, some).x, encoder(x).x)
    nothing = Mask(everything.masked, everything.visible)
    torch.testing.assert_close(encoder(x, nothing).x, encoder(x).x)


def test_masks_that_cannot_be() -> None:
    mask = Mask(torch.arange(16, 32)[None], torch.arange(16)[None])
    with pytest.raises(UserError, match="without a mask token"):
        mvit()(noise(1, 3, *CLIP), mask)
    with pytest.raises(UserError, match="multiple of 16"):
        mvit(masked="replace").mask_grid(noise(1, 3, 4, 40, 40))


def test_an_images_weights_start_a_clips_network() -> None:
    image, clip = mvit((64, 64), kv_stride=8), mvit((4, 96, 96))
    report = fit(clip, image.state_dict())
    assert not report.replaced
    assert {name.split(".")[-1] for name in report.fresh} == {"2"}  # the tables of time
    assert next(iter(report.resized)) == "stem.conv.weight"
    assert any("tables.0" in name for name in report.resized)
    for table in (block.attn.positions.tables[2] for block in clip.blocks):
        torch.nn.init.zeros_(table)
    still = noise(1, 3, 1, 96, 96).expand(-1, -1, 4, -1, -1)
    inside = clip.stem(still).map()[:, :, 1]  # the first place sees the border
    torch.testing.assert_close(inside, image.stem(still[:, :, 0]).map())


def test_layers_for_learning_rates() -> None:
    encoder = mvit(masked="replace")
    assert encoder.layer_of("stem.conv.weight") == encoder.layer_of("class_token") == 0
    assert encoder.layer_of("blocks.4.attn.positions.tables.0") == 5
    assert encoder.layer_of("norm.weight") == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_it_gives_the_same() -> None:
    encoder, x = mvit((2, 32, 32), Scales(8, 1, (1,))), noise(2, 3, 2, 32, 32)
    plain = encoder(x).x
    slopes = torch.autograd.grad(plain.square().mean(), list(encoder.blocks.parameters()))
    for block in encoder.blocks:
        block.compile()
    compiled = encoder(x).x
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    again = torch.autograd.grad(compiled.square().mean(), list(encoder.blocks.parameters()))
    torch.testing.assert_close(again, slopes, rtol=1e-3, atol=1e-6)


def test_channels_last_gives_the_same() -> None:
    encoder, x = mvit(), noise(2, 3, *CLIP)
    plain = encoder(x).x
    encoder.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(encoder(x.to(memory_format=torch.channels_last_3d)).x, plain, rtol=1e-4, atol=1e-5)
