"""Shift, loudness and mixing of waveforms."""

from __future__ import annotations

import pytest
import torch
from sounds import tone, write_sound

from unveil.data import Dataset, Manifest, RandomLoudness, RandomRoll, Row, Sound, TrainingOrder, training_batches
from unveil.data.clouds import Points
from unveil.data.dataset import seeded
from unveil.data.loader import mix
from unveil.errors import UserError
from unveil.recipe import Data, Loader

WAVE = torch.randn(1, 400, generator=torch.Generator().manual_seed(0)) / 4


@pytest.mark.parametrize("change", [RandomRoll(), RandomLoudness()], ids=repr)
def test_the_seed_decides(change):
    def changed(seed):
        with seeded(seed):
            return change(WAVE)

    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))
    assert (changed(1).shape, changed(1).dtype) == (WAVE.shape, WAVE.dtype)


def test_rolling_loses_nothing():
    places = set()
    for seed in range(200):
        with seeded(seed):
            rolled = RandomRoll()(WAVE)
        (place,) = torch.nonzero(rolled[0] == WAVE[0, 0])[:, 0].tolist()
        assert torch.equal(rolled.roll(-place, dims=-1), WAVE)
        places.add(place)
    assert len(places) > 120  # anywhere
    assert torch.equal(RandomRoll()(WAVE[:, :1]), WAVE[:, :1])


def test_loudness_stays_between_a_half_and_one_and_a_half():
    factors = []
    for seed in range(300):
        with seeded(seed):
            factors.append(float((RandomLoudness()(WAVE) / WAVE).mean()))
    factors = torch.tensor(factors)
    assert factors.min() > 0.5
    assert factors.max() < 1.5
    assert factors.mean() == pytest.approx(1, abs=0.03)
    assert factors.std() == pytest.approx((10 * 10 / (20**2 * 21)) ** 0.5, rel=0.2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    labels = ["a", "b", "a;b", "c", "c;a", "b"]
    rows = [
        Row(str(write_sound(folder / f"{i}.wav", 0.1 + tone(0.25, 8000, 200 + 150 * i, 0.3), 8000)), label)
        for i, label in enumerate(labels)
    ]
    return Manifest.of(rows)


def batch_of(manifest, **more):
    data = Data(Sound(0.25, 8000), **more)
    dataset = Dataset(manifest, data, manifest.classes, training=True, seed=0)
    batches = training_batches(dataset, TrainingOrder(6, 6, 0), Loader(workers=0), micro=6)
    return next(batches)[0]


def test_waveforms_and_their_labels_are_mixed_alike(manifest):
    plain, mixed = batch_of(manifest), batch_of(manifest, mixup=10.0)
    centred = plain["audio"] - plain["audio"].mean(dim=-1, keepdim=True)
    for first in (0, 2, 4):
        a, b = centred[first], centred[first + 1]
        found = mixed["audio"][first]
        share = float(((found - b) * (a - b)).sum() / (a - b).square().sum())
        assert 0.2 < share < 0.8  # Beta(10, 10)
        torch.testing.assert_close(found, share * a + (1 - share) * b, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mixed["audio"][first + 1], share * b + (1 - share) * a, atol=1e-5, rtol=1e-4)
        wanted = share * plain["label"][first] + (1 - share) * plain["label"][first + 1]
        torch.testing.assert_close(mixed["label"][first], wanted, atol=1e-4, rtol=1e-4)
    assert mixed["audio"].mean(dim=-1).abs().max() < 1e-6


def test_a_part_of_the_pairs_is_mixed(manifest):
    dataset = Dataset(manifest, Data(Sound(0.25, 8000), mixup=10.0, mixed=0.5), manifest.classes, training=True, seed=0)
    x, label = torch.randn(400, 1, 50), torch.eye(3)[torch.arange(400) % 3]
    mixed = mix({"audio": x, "label": label, "seed": torch.arange(400)}, dataset)
    same = (mixed["audio"] == x).all(dim=-1).all(dim=-1)
    assert torch.equal(same[::2], same[1::2])
    assert torch.equal(same, (mixed["label"] == label).all(dim=1))
    assert 0.4 < same.float().mean() < 0.6


def test_what_cannot_be_mixed_says_so(manifest):
    with pytest.raises(UserError, match=r"waveforms know only mixup: --sample\.cutmix 0"):
        batch_of(manifest, cutmix=1.0)
    points = Dataset(manifest, Data(Points(8), mixup=0.8), manifest.classes, training=True, seed=0)
    batch = {"points": torch.randn(2, 3, 8), "label": torch.eye(3)[:2], "seed": torch.arange(2)}
    with pytest.raises(UserError, match="points are not mixed"):
        mix(batch, points)
