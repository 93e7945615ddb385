import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unveil.targets import HOG, Drawable
from unveil.tokens import Patchify

IMAGES = Patchify(16, 16, channels=3)
FRAMES = Patchify(1, 16, 16, channels=3)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def everywhere(grid: tuple[int, ...], batch: int) -> Tensor:
    return torch.arange(math.prod(grid)).expand(batch, -1)


def by_hand(image: Tensor, cell: int = 8, bins: int = 9) -> Tensor:
    """[C, H, W] → [C, bins, H / cell, W / cell], pixel by pixel."""
    channels, height, width = image.shape
    found = torch.zeros(channels, bins, height // cell, width // cell, dtype=torch.float64)

    def at(c: int, i: int, j: int) -> float:
        i, j = (min(abs(n), 2 * (side - 1) - n) for n, side in ((i, height), (j, width)))
        return image[c, i, j].item()

    for c in range(channels):
        for i in range(height):
            for j in range(width):
                gx = sum(w * (at(c, i + n, j - 1) - at(c, i + n, j + 1)) for n, w in ((-1, 1), (0, 2), (1, 1)))
                gy = sum(w * (at(c, i - 1, j + n) - at(c, i + 1, j + n)) for n, w in ((-1, 1), (0, 2), (1, 1)))
                angle = math.atan2(gx, gy) % math.pi  # opposite directions are one
                found[c, int(angle / math.pi * bins) % bins, i // cell, j // cell] += math.hypot(gx, gy)
    return found / found.square().sum(1, keepdim=True).sqrt()


def test_by_its_definition() -> None:
    x = noise(1, 3, 16, 32)
    target = HOG(IMAGES, "image")({"image": x}, (1, 2), everywhere((1, 2), 1))
    expected = by_hand(x[0]).unflatten(3, (2, 2)).permute(3, 0, 1, 2, 4).flatten(1)
    assert target.shape == (1, 2, 108)
    torch.testing.assert_close(target[0], expected.float(), rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_in_the_order_asked() -> None:
    x, target = {"image": noise(2, 3, 48, 64)}, HOG(IMAGES, "image")
    indices = torch.tensor([[11, 0, 5], [1, 6, 2]])
    whole = target(x, (3, 4), everywhere((3, 4), 2))
    assert torch.equal(target(x, (3, 4), indices), torch.stack([whole[i, indices[i]] for i in (0, 1)]))
    assert target(x, (3, 4), indices[:, :0]).shape == (2, 0, 108)


def test_of_a_clip_every_second_frame() -> None:
    clip, grid = noise(2, 3, 8, 32, 32), (4, 2, 2)
    found = HOG(FRAMES, "video")({"video": clip}, grid, everywhere(grid, 2)).unflatten(1, (4, 4))
    for number, frame in enumerate((0, 2, 4, 6)):
        image = HOG(IMAGES, "image")({"image": clip[:, :, frame]}, (2, 2), everywhere((2, 2), 2))
        assert torch.equal(found[:, number], image)
    odd = HOG(FRAMES, "video").signal({"video": clip[:, :, :7]}, grid)
    assert torch.equal(odd, clip[:, :, ::2])
    every = HOG(FRAMES, "video").signal({"video": clip}, (8, 2, 2))
    assert torch.equal(every, clip)


def test_contrast_and_brightness_make_no_difference() -> None:
    x, target = noise(1, 3, 32, 32), HOG(IMAGES, "image")
    where = everywhere((2, 2), 1)
    plain = target({"image": x}, (2, 2), where)
    torch.testing.assert_close(target({"image": 4 * x}, (2, 2), where), plain)
    torch.testing.assert_close(target({"image": -x + 2}, (2, 2), where), plain, rtol=1e-3, atol=1e-4)
    lengths = plain.unflatten(-1, (3, 9, 4)).square().sum(3)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_a_flat_patch_has_no_edges() -> None:
    target = HOG(IMAGES, "image")({"image": torch.ones(1, 3, 16, 16)}, (1, 1), everywhere((1, 1), 1))
    assert not target.any()


def test_in_full_precision_without_a_gradient() -> None:
    x = noise(1, 3, 16, 16).bfloat16().requires_grad_()
    target = HOG(IMAGES, "image")({"image": x}, (1, 1), everywhere((1, 1), 1))
    assert (target.dtype, target.requires_grad) == (torch.float32, False)
    assert torch.equal(target, HOG(IMAGES, "image")({"image": x.detach().float()}, (1, 1), everywhere((1, 1), 1)))


def test_other_cells_and_bins() -> None:
    target = HOG(IMAGES, "image", cell=4, bins=6)
    assert target.width == 3 * 6 * 16
    x = noise(1, 3, 16, 16)
    found = target({"image": x}, (1, 1), everywhere((1, 1), 1))
    torch.testing.assert_close(found[0, 0].view(3, 6, 4, 4), by_hand(x[0], 4, 6).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patchify": Patchify(14, 14, channels=3)}, "cells of 8 pixels do not divide patches of 14"),
        ({"patchify": Patchify(2, 16, 16, channels=3)}, "one frame"),
    ],
)
def test_patches_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HOG(**options, key="image")


def test_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="was asked about the grid"):
        HOG(IMAGES, "image")({"image": noise(1, 3, 32, 32)}, (3, 3), everywhere((3, 3), 1))


def test_pictures_show_edges() -> None:
    """A picture whose left half is dark has an upright edge, and no other; the line drawn for it is upright."""
    x = torch.zeros(1, 3, 16, 16)
    x[..., 4:] = 1.0
    target = HOG(IMAGES, "image")
    assert isinstance(target, Drawable)
    batch, where = {"image": x}, everywhere((1, 1), 1)
    found = target(batch, (1, 1), where)
    assert found.unflatten(-1, (3, 9, 2, 2))[..., 1].count_nonzero() == 0  # nothing in the right cells
    patches = target.picture(found, batch, (1, 1), where)
    picture = IMAGES.join(patches, (1, 1))[0]
    assert picture.shape == (3, 16, 16)
    assert (picture[:, :, 8:] == -2).all()
    columns = picture[:, :8, :8].mean((0, 1))
    assert columns.argmax() in (3, 4)
    assert columns[[0, 7]].max() < columns[[3, 4]].min()
    assert torch.equal(target.picture(found - 100, batch, (1, 1), where), torch.full_like(patches, -2.0))
