"""Transforms treat all frames alike, stay inside the picture, and say what they are."""

from __future__ import annotations

import pickle

import pytest
import torch
from torchvision.transforms import InterpolationMode

from unveil.data import (
    CenterCrop,
    HorizontalFlip,
    MultiScaleCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    ResizeShort,
    three_crops,
)

FRAME = torch.stack(
    [
        torch.arange(80).expand(60, 80) * 3,
        torch.arange(60)[:, None].expand(60, 80) * 4,
        torch.full((60, 80), 7),
    ]
).to(torch.uint8)
STILL = FRAME.expand(5, 3, 60, 80)  # five equal frames

RANDOM = [
    MultiScaleCrop(32),
    RandomResizedCrop(32, (0.2, 1.0)),
    RandomResizedCrop(32, bicubic=True),
    HorizontalFlip(),
    RandAugment(2, 9),
]


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_the_same_for_every_frame_and_for_an_image(transform):
    different = set()
    for seed in range(12):
        torch.manual_seed(seed)
        clip = transform(STILL)
        assert clip.dtype == torch.uint8
        assert all(torch.equal(frame, clip[0]) for frame in clip)
        torch.manual_seed(seed)
        assert torch.equal(transform(FRAME), clip[0])
        different.add(clip[0].numpy().tobytes())
    assert len(different) > 1
    pickle.loads(pickle.dumps(transform))


def test_multi_scale_crop():
    transform = MultiScaleCrop(30)
    seen = set()
    for seed in range(1500):
        torch.manual_seed(seed)
        box = transform.make_params([STILL])
        assert box["top"] + box["height"] <= 60
        assert box["left"] + box["width"] <= 80
        sides = [60, 52, 45, 39]
        assert abs(sides.index(box["height"]) - sides.index(box["width"])) <= 1
        seen.add((box["height"], box["width"], box["top"], box["left"]))
    assert len({(h, w) for h, w, _, _ in seen}) == 4 + 2 * 3  # equal sides, and neighbours in the list
    assert len({(t, left) for h, w, t, left in seen if (h, w) == (39, 39)}) == 13
    # A scale within three pixels of the result is taken at the result's size; never beyond the picture.
    for seed in range(50):
        torch.manual_seed(seed)
        assert MultiScaleCrop(54, scales=(1, 0.875)).make_params([STILL])["height"] in (60, 54)
        assert MultiScaleCrop(62, scales=(1,)).make_params([STILL])["height"] == 60
    assert MultiScaleCrop(30)(torch.zeros(2, 3, 1, 1, dtype=torch.uint8)).shape == (2, 3, 30, 30)


def test_evaluation_transforms():
    short = ResizeShort(30)(STILL)
    assert short.shape == (5, 3, 30, 40)
    assert ResizeShort(30)(STILL.transpose(2, 3)).shape == (5, 3, 40, 30)
    assert torch.equal(CenterCrop(30)(short), short[..., 5:35])
    assert ResizeShort(30, bicubic=True).interpolation == InterpolationMode.BICUBIC


@pytest.mark.parametrize("upright", [False, True])
def test_three_crops(upright):
    x = torch.arange(30 * 50).view(1, 30, 50)
    x = x.transpose(1, 2) if upright else x
    first, middle, last = three_crops(x, 30)
    if upright:
        first, middle, last, x = (y.transpose(1, 2) for y in (first, middle, last, x))
    assert torch.equal(first, x[..., :30])
    assert torch.equal(middle, x[..., 10:40])
    assert torch.equal(last, x[..., 20:])
    with pytest.raises(ValueError, match="do not fit"):
        three_crops(x, 31)


def test_random_erasing():
    x = torch.full((3, 4, 40, 50), 9.0)
    erase = RandomErasing(1.0)
    places = set()
    for seed in range(30):
        torch.manual_seed(seed)
        y = erase(x)
        changed = y != 9
        assert torch.equal(changed, changed[:1, :1].expand_as(changed))  # one box for all frames and channels
        share = changed[0, 0].float().mean().item()
        assert 0.015 < share < 0.36
        places.add(tuple(changed[0, 0].nonzero()[0].tolist()))
        noise = y[changed]
        assert abs(noise.mean()) < 0.5
        assert not torch.equal(y[0, 0], y[0, 1])  # noise of its own in each frame
    assert len(places) > 20
    assert (x == 9).all()
    torch.manual_seed(0)
    count = sum(bool((RandomErasing(0.25)(x) != 9).any()) for _ in range(200))
    assert 30 < count < 75
    assert (RandomErasing(1.0, scale=(0.9, 1.0), ratio=(9.0, 10.0))(x) == 9).all()  # no such box fits
    assert RandomErasing(1.0)(x[:, 0]).shape == (3, 40, 50)


def test_reprs():
    assert repr(MultiScaleCrop(224)) == "MultiScaleCrop(size=224, scales=(1, 0.875, 0.75, 0.66), max_distort=1)"
    assert "scale=(0.2, 1.0)" in repr(RandomResizedCrop(224, (0.2, 1.0), bicubic=True))
    assert "bicubic" in repr(RandomResizedCrop(224, bicubic=True)).lower()
    assert "magnitude=7" in repr(RandAugment(4, 7))
    assert repr(RandomErasing(0.25)).startswith("RandomErasing(p=0.25")
