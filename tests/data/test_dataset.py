"""Samples: what they hold, what they depend on, and what becomes of files that cannot be read."""

from __future__ import annotations

import pytest
import torch
from media import frame_number, numbered_frames, write_video

from unveil.data import (
    CenterCrop,
    Dataset,
    Dense,
    Image,
    Manifest,
    MultiScaleCrop,
    RandAugment,
    ResizeShort,
    Row,
    Video,
    sample_seed,
)
from unveil.errors import DecodeError, UserError
from unveil.recipe import Data


def counting(repeats: int = 1, **options) -> Data:
    """Clips whose frame numbers survive: no crop, mean 0, std 1."""
    return Data(Video(Dense(4, 2)), mean=(0, 0, 0), std=(1, 1, 1), repeats=repeats, **options)


def number(frame: torch.Tensor) -> int:
    return frame_number((frame * 255).permute(1, 2, 0))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for i in range(6):
        path = write_video(folder / f"{i}.mp4", numbered_frames(24, 32, 64, seed=i))
        rows.append(Row(str(path), "ab"[i % 2]))
    return rows


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_text("not a video")
    return Row(str(path), "a")


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k != "bad")


def test_training_sample(rows):
    dataset = Dataset(Manifest.of(rows), counting(), ["a", "b"], training=True, seed=3)
    assert len(dataset) == 6
    [sample] = dataset[2, 5]
    assert (sample["video"].dtype, sample["video"].shape) == (torch.float32, (3, 4, 32, 64))
    assert (sample["index"].dtype, int(sample["index"])) == (torch.int64, 5)
    assert (sample["seed"].dtype, int(sample["seed"])) == (torch.int64, sample_seed(3, 2, 5, 0))
    assert (sample["label"].dtype, int(sample["label"])) == (torch.int64, 1)
    assert sample["bad"] == []
    numbers = [number(sample["video"][:, t]) for t in range(4)]
    assert numbers == [numbers[0] + 2 * t for t in range(4)]


def test_a_sample_depends_on_seed_epoch_and_index_alone(rows):
    data = Data(Video(Dense(4, 2)), transform=[MultiScaleCrop(16), RandAugment()], erase=0.5, repeats=2)
    dataset = Dataset(Manifest.of(rows), data, None, training=True, seed=3)
    first = dataset[0, 1]
    torch.rand(7)
    assert "label" not in first[0]
    assert all(equal(a, b) for a, b in zip(dataset[0, 1], first, strict=True))
    assert not torch.equal(first[0]["video"], first[1]["video"])  # the repeats are cropped anew
    for other in (dataset[1, 1], Dataset(Manifest.of(rows), data, None, training=True, seed=4)[0, 1]):
        assert not torch.equal(other[0]["video"], first[0]["video"])
    assert len({int(s["seed"]) for s in (*first, *dataset[1, 1], *dataset[0, 2])}) == 6


def test_the_callers_generators_are_left_alone(rows):
    data = Data(Video(Dense(4, 2)), transform=[MultiScaleCrop(16)], erase=0.5)
    dataset = Dataset(Manifest.of(rows), data, None, training=True, seed=0)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_repeats_decode_once(rows, monkeypatch):
    dataset = Dataset(Manifest.of(rows), counting(repeats=3), None, training=True, seed=0)
    calls = []
    original = Video.read
    monkeypatch.setattr(Video, "read", lambda self, *args: calls.append(1) or original(self, *args))
    samples = dataset[0, 0]
    assert len(samples) == 3
    assert len(calls) == 1
    assert torch.equal(samples[0]["video"], samples[2]["video"])  # the same frames: nothing else was random


def test_labels(rows):
    manifest = Manifest.of(
        row._replace(label=label) for row, label in zip(rows, ["a;c", "b", "", "c", "a", "b"], strict=True)
    )
    dataset = Dataset(manifest, counting(), ["a", "b", "c"], training=True, seed=0)
    assert [dataset[0, i][0]["label"].tolist() for i in range(3)] == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    part = manifest.select([1, 2])
    single = Dataset(part, counting(), ["a", "b", "c"], training=True, seed=0)
    assert [int(single[0, i][0]["label"]) for i in range(2)] == [1, -1]
    multi = Dataset(part, counting(), ["a", "b", "c"], training=True, seed=0, multi_label=True)
    assert multi[0, 0][0]["label"].tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="label 'c' is none of the classes a, b"):
        Dataset(manifest, counting(), ["a", "b"], training=True, seed=0)
    with pytest.raises(UserError, match="empty"):
        Dataset(Manifest.of([]), counting(), None, training=True, seed=0)


def test_evaluation_views(rows):
    data = Data(
        Video(Dense(4, 2)),
        evaluation=[ResizeShort(16), CenterCrop(16)],
        mean=(0, 0, 0),
        std=(1, 1, 1),
        clips=2,
        crops=3,
    )
    dataset = Dataset(Manifest.of(rows), data, ["a", "b"], training=False, seed=0)
    [sample] = dataset[4]
    assert sample["video"].shape == (6, 3, 4, 16, 16)
    assert (int(sample["index"]), int(sample["label"])) == (4, 0)
    assert equal(sample, dataset[0, 4][0])
    red = sample["video"][:, 0, 0]  # bits of the frame's number, from left to right
    assert red[0].max() < 0.3  # frame 0
    # Clip by clip: the second one starts at frame 17, whose first bit is the left of the picture.
    assert red[3].max() > 0.7
    assert not torch.equal(red[3], red[5])
    [plain] = Dataset(Manifest.of(rows), counting(), None, training=False, seed=0)[0]
    assert plain["video"].shape == (1, 3, 4, 32, 64)
    for options in ({"crops": 2}, {"crops": 3}, {"crops": 3, "evaluation": [ResizeShort(16)]}):
        with pytest.raises(UserError, match=r"--sample\.crops"):
            Dataset(Manifest.of(rows), counting(**options), None, training=False, seed=0)


def test_a_bad_file_is_replaced_and_reported(rows, broken):
    dataset = Dataset(Manifest.of([broken, *rows]), counting(repeats=2), ["a", "b"], training=True, seed=0)
    first, second = dataset[0, 0]
    [(path, error)] = first["bad"]
    assert path == broken.path
    assert "Invalid data" in error
    assert "bad" not in second  # told once
    assert int(first["index"]) != 0
    assert int(first["seed"]) == sample_seed(0, 0, 0, 0)
    assert int(first["label"]) == "ab".index(dataset.manifest.row(int(first["index"])).label)
    assert equal(first, dataset[0, 0][0])
    assert len({int(dataset[epoch, 0][0]["index"]) for epoch in range(10)}) > 1
    [missing] = Dataset(Manifest.of([broken, *rows]), counting(), ["a", "b"], training=False, seed=0)[0]
    assert "video" not in missing
    assert missing["bad"] == [(path, error)]


def test_nothing_but_bad_files(broken):
    dataset = Dataset(Manifest.of([broken] * 3), counting(), None, training=True, seed=0)
    with pytest.raises(UserError, match=r"^3 files in a row cannot be decoded.*broken\.mp4"):
        dataset[0, 0]
    dataset = Dataset(Manifest.of([broken] * 30), counting(), None, training=True, seed=0)
    with pytest.raises(UserError, match=r"^11 files in a row"):
        dataset[0, 0]


def test_defects_are_not_bad_files(rows, monkeypatch):
    def defect(self, row, generator=None):
        raise RuntimeError("a defect")

    monkeypatch.setattr(Image, "read", defect)
    with pytest.raises(RuntimeError, match="a defect"):
        Dataset(Manifest.of(rows), Data(Image()), None, training=True, seed=0)[0, 0]
    assert issubclass(DecodeError, UserError)


def test_sample_seed():
    seeds = {sample_seed(s, e, i, r) for s in range(3) for e in range(4) for i in range(50) for r in range(2)}
    assert len(seeds) == 3 * 4 * 50 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)
