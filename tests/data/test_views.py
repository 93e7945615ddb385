"""Several views of a sample: of one picture, or of moments of one video; all of it from the sample's seed."""

from __future__ import annotations

import pytest
import torch
from media import frame_number, numbered_frames, write_video
from PIL import Image as Pictures

from unveil.data import (
    ColorJitter,
    Dataset,
    Dense,
    HorizontalFlip,
    Image,
    Manifest,
    RandomResizedCrop,
    Row,
    TrainingOrder,
    Video,
    training_batches,
)
from unveil.data import images as images_module
from unveil.data import signals as signals_module
from unveil.errors import UserError
from unveil.recipe import Data, Loader


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [Row(str(write_video(folder / f"{i}.mp4", numbered_frames(24, 32, 64, seed=i))), "") for i in range(4)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        torch.manual_seed(i)
        Pictures.fromarray(torch.randint(256, (40, 50, 3), dtype=torch.uint8).numpy()).save(folder / f"{i}.png")
    return [Row(str(path), "") for path in sorted(folder.iterdir())]


def two(signal, first=(), second=(), **more) -> Data:
    return Data(signal, transform=first, views=[second], mean=(0, 0, 0), std=(1, 1, 1), **more)


CROPS = {"first": [RandomResizedCrop(16)], "second": [RandomResizedCrop(16), HorizontalFlip()]}


def test_each_view_has_transforms_of_its_own(pictures):
    data = two(Image(), [RandomResizedCrop(16)], [RandomResizedCrop(16), ColorJitter(0, 0, 0, 0), lambda x: x * 0])
    [sample] = Dataset(Manifest.of(pictures), data, None, training=True, seed=0)[0, 1]
    assert sample["image"].shape == (2, 3, 16, 16)
    assert sample["image"][0].any()
    assert not sample["image"][1].any()


def test_views_are_drawn_apart(pictures):
    """The same transforms give other crops; and the first view is that of the recipe that has only one."""
    dataset = Dataset(
        Manifest.of(pictures), two(Image(), [RandomResizedCrop(16)], [RandomResizedCrop(16)]), None, True, 0
    )
    [sample] = dataset[0, 1]
    assert not torch.equal(sample["image"][0], sample["image"][1])
    alone = Data(Image(), transform=[RandomResizedCrop(16)], mean=(0, 0, 0), std=(1, 1, 1))
    [one] = Dataset(Manifest.of(pictures), alone, None, True, 0)[0, 1]
    torch.testing.assert_close(sample["image"][0], one["image"])


def test_a_function_of_seed_epoch_and_index(pictures):
    dataset = Dataset(Manifest.of(pictures), two(Image(), **CROPS, repeats=2, erase=0.5), None, training=True, seed=3)
    first = dataset[0, 1]
    torch.rand(7)
    again = dataset[0, 1]
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["image"], b["image"])
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert not torch.equal(dataset[1, 1][0]["image"], first[0]["image"])


def test_a_picture_is_decoded_once(pictures, monkeypatch):
    calls = []
    monkeypatch.setattr(signals_module, "read_image", lambda path: calls.append(path) or images_module.read_image(path))
    Dataset(Manifest.of(pictures), two(Image(), **CROPS), None, training=True, seed=0)[0, 1]
    assert len(calls) == 1


def test_moments_of_a_video(clips):
    """Each view is a clip of a moment of its own; both keep the stride."""
    dataset = Dataset(Manifest.of(clips), two(Video(Dense(4, 2))), None, training=True, seed=0)
    starts = []
    for epoch in range(6):
        [sample] = dataset[epoch, 1]
        assert sample["video"].shape == (2, 3, 4, 32, 64)
        numbers = [[frame_number((view[:, t] * 255).permute(1, 2, 0)) for t in range(4)] for view in sample["video"]]
        assert all(row == [row[0] + 2 * t for t in range(4)] for row in numbers)
        starts.append((numbers[0][0], numbers[1][0]))
    assert any(a != b for a, b in starts)
    assert len(set(starts)) > 3


def test_batches_and_evaluation(pictures):
    data = two(Image(), **CROPS)
    dataset = Dataset(Manifest.of(pictures), data, None, training=True, seed=0)
    batches = training_batches(dataset, TrainingOrder(5, 4, 0), Loader(workers=0), micro=2)
    first, second = next(batches)
    batches.close()
    assert first["image"].shape == second["image"].shape == (2, 2, 3, 16, 16)
    [one] = Dataset(Manifest.of(pictures), data, None, training=False, seed=0)[2]
    assert one["image"].shape == (1, 3, 40, 50)  # one test view, as of any recipe


def test_views_of_different_shapes_are_refused(pictures):
    data = two(Image(), [RandomResizedCrop(16)], [RandomResizedCrop(24)])
    with pytest.raises(UserError, match="end all of them with one crop"):
        Dataset(Manifest.of(pictures), data, None, training=True, seed=0)[0, 0]


def test_what_is_done_is_described():
    described = two(Image(), **CROPS).described()
    assert len(described["training"]) == 1
    assert len(described["view 2"]) == 2
