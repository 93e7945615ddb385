"""Colours and sharpness: as published, alike in all frames, and as often as asked."""

from __future__ import annotations

import pickle

import pytest
import torch

from unveil.data import ColorJitter, GaussianBlur, Grayscale, Solarize

torch.manual_seed(0)
FRAME = torch.randint(256, (3, 40, 48), dtype=torch.uint8)
CLIP = FRAME.expand(4, 3, 40, 48)
ALL = [
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.5),
    Grayscale(0.5),
    GaussianBlur(),
    Solarize(0.5),
]


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_the_same_for_every_frame_and_for_an_image(transform):
    different = set()
    for seed in range(10):
        torch.manual_seed(seed)
        clip = transform(CLIP)
        assert clip.dtype == torch.uint8
        assert all(torch.equal(frame, clip[0]) for frame in clip)
        torch.manual_seed(seed)
        assert torch.equal(transform(FRAME), clip[0])
        different.add(clip[0].numpy().tobytes())
    assert len(different) > 1
    pickle.loads(pickle.dumps(transform))


@pytest.mark.parametrize(
    "make",
    [lambda p: ColorJitter(0.4, 0.4, 0.4, 0.4, p), Grayscale, GaussianBlur, Solarize],
    ids=["jitter", "grey", "blur", "sun"],
)
def test_probability(make):
    torch.manual_seed(1)
    some, never, always = make(0.3), make(0.0), make(1.0)
    changed = sum(not torch.equal(some(FRAME), FRAME) for _ in range(400)) / 400
    assert changed == pytest.approx(0.3, abs=0.08)
    assert torch.equal(never(FRAME), FRAME)
    assert not torch.equal(always(FRAME), FRAME)


def test_what_they_do():
    grey = Grayscale(1.0)(FRAME)
    assert torch.equal(grey[0], grey[1])
    sun = Solarize(1.0)(FRAME)
    assert torch.equal(sun, torch.where(FRAME >= 128, 255 - FRAME, FRAME))
    blurred = GaussianBlur(1.0, (2.0, 2.0))(FRAME)
    assert blurred.float().std() < 0.3 * FRAME.float().std()
    dot = torch.zeros(3, 41, 41, dtype=torch.uint8)
    dot[:, 20, 20] = 255
    row = GaussianBlur(1.0, (1.0, 1.0))(dot)[0, 20].float()
    assert (row[20] / row[21]).item() == pytest.approx(
        1.65, rel=0.06
    )  # a Gaussian of deviation 1 falls by exp(1/2) at 1
