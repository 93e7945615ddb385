"""Scale jitter: how large a part of the picture is shown, and where."""

import pytest
import torch

from unveil.data import RandomShortSideCrop
from unveil.data.transforms import CropFirst


def boxes(transform, height=90, width=160, count=400):
    torch.manual_seed(0)
    return [CropFirst.of(transform).box(height, width) for _ in range(count)]


def test_the_part_is_the_crop_in_a_short_side_of_the_drawn_size():
    found = boxes(RandomShortSideCrop(56, 64, 80))
    sides = {box.height for box in found}
    assert all(box.height == box.width for box in found)
    assert (min(sides), max(sides)) == (round(90 * 56 / 80), round(90 * 56 / 64))
    assert all(0 <= box.top <= 90 - box.height and 0 <= box.left <= 160 - box.width for box in found)
    assert {box.left for box in found} >= {0, 160 - min(sides)} or len({box.left for box in found}) > 60


def test_inverse_sizes_are_smaller_on_average():
    plain, inverse = (boxes(RandomShortSideCrop(56, 64, 256, inverse=way), 360, 640) for way in (False, True))
    mean = [sum(box.height for box in found) / len(found) for found in (plain, inverse)]
    # Of sizes uniform in [64, 256] and of inverses uniform in [1/256, 1/64]: the part's side is 360 × 56 / size.
    assert mean[0] == pytest.approx(360 * 56 * torch.tensor(4.0).log().item() / 192, rel=0.05)
    assert mean[1] == pytest.approx(360 * 56 * (1 / 64 + 1 / 256) / 2, rel=0.05)


def test_equal_to_resizing_first_up_to_the_grid():
    """On a smooth picture: resized to the drawn short side and then cropped gives the same values."""
    y, x = torch.meshgrid(torch.linspace(0, 255, 180), torch.linspace(0, 255, 320), indexing="ij")
    picture = torch.stack([y, x, (x + y) / 2]).to(torch.uint8)
    torch.manual_seed(1)
    transform = RandomShortSideCrop(56, 64, 64)
    box = CropFirst.of(transform).box(180, 320)
    torch.manual_seed(1)
    shown = transform(picture)
    assert shown.shape == (3, 56, 56)
    scale = 64 / 180
    whole = torch.nn.functional.interpolate(
        picture[None].float(), size=(64, round(320 * scale)), antialias=True, mode="bilinear"
    )
    top, left = round(box.top * scale), round(box.left * scale)
    expected = whole[0, :, top : top + 56, left : left + 56]
    assert (shown[..., : expected.shape[-1]].float() - expected).abs().mean() < 3


def test_a_crop_must_fit():
    with pytest.raises(ValueError, match="must fit"):
        RandomShortSideCrop(224, 200, 320)
    assert "low=256, high=320" in repr(RandomShortSideCrop(224, 256, 320))
