"""Rare labels are seen as often as common ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import unveil
from unveil.data import Manifest, Row, TrainingOrder
from unveil.data.balance import balanced
from unveil.errors import UserError

LABELS = ["a"] * 12 + ["b"] * 3 + ["a;b"] * 2 + ["c"] + ["a;c"]


def test_weights_are_sums_over_labels():
    weights = balanced(Manifest.of([Row(f"{i}.wav", label) for i, label in enumerate(LABELS)])).weights
    assert weights is not None
    count = {"a": 15, "b": 5, "c": 2}
    wanted = np.array([sum(1 / count[name] for name in label.split(";")) for label in LABELS])
    np.testing.assert_allclose(weights, wanted * len(LABELS) / wanted.sum())
    assert weights.mean() == pytest.approx(1)
    with pytest.raises(UserError, match="--balance: 1 of 2 files have no label"):
        balanced(Manifest.of([Row("a.wav", "a"), Row("b.wav")]))


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=25), epoch=st.integers(0, 5))
def test_an_epoch_is_as_long_as_ever_and_no_row_is_far_from_its_weight(labels, epoch):
    manifest = balanced(Manifest.of([Row(f"{i}.wav", ";".join(sorted(names))) for i, names in enumerate(labels)]))
    order = TrainingOrder(len(manifest), 1, 3, weights=manifest.weights)
    assert order.steps_per_epoch == len(manifest)
    keys = [order.step(epoch * len(manifest) + i)[1][0] for i in range(len(manifest))]
    assert len(set(keys)) == len(keys)
    seen = Counter(key[1] for key in keys)
    for row, weight in enumerate(manifest.weights):
        assert np.floor(weight - 1e-6) <= seen[row] <= np.ceil(weight + 1e-6)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i, label in enumerate(LABELS):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


FLAGS = {
    "size": "debug", "crop": 16, "patch": 8, "max_steps": 2, "quiet": True, "loader.workers": 0, "schedule.batch": 4,
    "loader.batch": 4, "val_fraction": 0,
}  # fmt: skip


def test_a_run_remembers_that_it_is_balanced(pictures, tmp_path):
    run = unveil.train("vit", data=pictures, out=tmp_path / "a", balance=True, **FLAGS)
    weights = Manifest.load(run.path / "manifest.parquet").weights
    assert weights is not None
    assert weights.max() / weights.min() == pytest.approx((1 / 2 + 1 / 15) / (1 / 15))
    with pytest.raises(UserError, match=r"--balance: was True, is not given"):
        unveil.train("vit", data=pictures, out=tmp_path / "a", **FLAGS)


def test_what_balance_cannot_do(pictures, tmp_path):
    with pytest.raises(UserError, match="--balance and --data-weight both say how often"):
        unveil.train("vit", data=pictures, out=tmp_path / "b", balance=True, data_weight=2, **FLAGS)
    assert not (tmp_path / "b").exists()
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "plain" / "a.png")
    with pytest.raises(UserError, match="--balance: 1 of 1 files have no label"):
        unveil.pretrain("mae", data=tmp_path / "plain", out=tmp_path / "c", balance=True, **FLAGS)
