"""Images and clips as one signal, and in one stream of batches: one kind in each, as often as their folders' weights say."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media import frame_number, numbered_frames, write_video
from PIL import Image as PillowImage

from unveil.data import (
    Dataset,
    Dense,
    Image,
    Manifest,
    RandomResizedCrop,
    Row,
    Signal,
    TrainingOrder,
    Video,
    Visual,
    evaluation_batches,
    mixture,
    training_batches,
)
from unveil.data.mixture import parsed_weights
from unveil.data.visual import kinds_of
from unveil.errors import UserError
from unveil.recipe import Data, Loader

HERE = Loader(workers=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Nine images and six clips."""
    images, clips = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for i in range(9):
        picture = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
        PillowImage.fromarray(picture).save(images / f"{i}.png")
    for i in range(6):
        write_video(clips / f"{i}.mp4", numbered_frames(12, seed=i))
    return images, clips


def training(manifest: Manifest, seed: int = 0, **more) -> Dataset:
    data = Data(Visual(Dense(4, 1)), transform=[RandomResizedCrop(8)], **{"repeats": 2} | more)
    return Dataset(manifest, data, None, training=True, seed=seed)


def order_of(dataset: Dataset, batch: int, seed: int = 0) -> TrainingOrder:
    return TrainingOrder(len(dataset), batch, seed, dataset.kinds, dataset.weights)


# ---- the signal


def test_a_file_is_read_as_its_name_says(folders):
    images, clips = folders
    signal: Signal = Visual(Dense(4, 1), still=3)
    picture, clip = Row(str(images / "0.png")), Row(str(clips / "0.mp4"))
    assert signal.read(picture).shape == (3, 3, 48, 64)
    assert all(torch.equal(frame, Image().read(picture)) for frame in signal.read(picture))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(signal.read(clip, generators[0]), Video(Dense(4, 1)).read(clip, generators[1]))
    assert [x.shape[0] for x in signal.views(picture, 5)] == [3]
    assert [x.shape[0] for x in signal.views(clip, 2)] == [4, 4]
    assert [x.shape[0] for x in signal.moments(picture, 2)] == [3, 3]
    assert [(a, b, x.shape[0]) for a, b, x in signal.windows(picture.path)] == [(None, None, 3)]
    assert [frame_number(x[0].permute(1, 2, 0)) for _, _, x in signal.windows(clip.path)] == [0, 4, 8]
    cropped = signal.read(picture, None, lambda height, width: (1, 2, height // 2, width // 2))
    assert torch.equal(cropped[1], Image().read(picture)[:, 1:25, 2:34])
    assert signal.blank().shape[0] == 4
    assert [x.shape[0] for x in Visual(Dense(4, 1)).blanks()] == [4, 2]
    assert signal.measure(clip.path).frames == 12
    assert signal.measure(picture.path) == Image.measure(picture.path)


def test_kinds(folders):
    manifest = Manifest.of([Row("a.MP4"), Row("b.JPG"), Row("c.strange")])
    kinds = kinds_of(Visual(Dense(4, 1)), manifest)
    assert kinds is not None
    assert kinds.tolist() == [0, 1, 0]
    assert kinds_of(Video(Dense(4, 1)), manifest) is None
    with pytest.raises(ValueError, match="at least one frame"):
        Visual(Dense(4, 1), still=0)


# ---- the order


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.3, 0.5, 1.0, 2.0, 2.5])), min_size=1, max_size=4),
    kinds=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    batch=st.integers(1, 9),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 4),
)
def test_an_epoch_shows_each_kind_apart_and_each_file_as_often_as_it_weighs(counts, kinds, batch, seed, epoch):
    of = np.concatenate([np.full(n, kinds[i]) for i, (n, _) in enumerate(counts)])
    weight = np.concatenate([np.full(n, w) for n, w in counts])
    order = TrainingOrder(len(of), batch, seed, of, weight)
    steps = [order.step(epoch * order.steps_per_epoch + i) for i in range(order.steps_per_epoch)]
    keys = [key for _, step in steps for key in step]
    assert {e for e, _ in steps} == {epoch}
    assert all(len(step) == order.batch for _, step in steps)
    assert all(len({of[key[1]] for key in step}) == 1 for _, step in steps)
    assert len(set(keys)) == len(keys)  # no two samples share a seed
    assert Counter(of[step[0][1]] for _, step in steps) == order.steps_of_kind
    seen = Counter(key[1] for key in keys)
    for kind, count in order.steps_of_kind.items():
        total = weight[of == kind].sum()
        wanted = max(1, round(total))
        assert count == wanted // order.batch
        exactly = wanted / total  # an epoch has a whole number of samples
        for row in np.flatnonzero(of == kind):
            assert seen[row] <= np.ceil(weight[row] * exactly - 1e-6)
        if wanted % order.batch == 0:
            for w in set(weight[of == kind]):
                rows = np.flatnonzero((of == kind) & (weight == w))
                assert abs(sum(seen[row] for row in rows) - w * len(rows) * exactly) < 1 + 1e-6
                assert all(seen[row] >= np.floor(w * exactly + 1e-6) for row in rows)
    fresh = TrainingOrder(len(of), batch, seed, of, weight)
    assert [fresh.step(epoch * order.steps_per_epoch + i) for i in range(order.steps_per_epoch)] == steps


@given(count=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 3), step=st.integers(0, 40))
def test_one_kind_seen_once_is_the_order_there_always_was(count, batch, seed, step):
    plain = TrainingOrder(count, batch, seed)
    said = TrainingOrder(count, batch, seed, np.full(count, 1), np.ones(count))
    assert said.step(step) == plain.step(step)


def test_every_row_is_seen_as_often_as_it_weighs_in_the_long_run():
    weights = np.array([0.1, 0.25, 0.9, 1.0, 1.75, 3.0])
    order, epochs = TrainingOrder(6, 1, 0, weights=weights), 2000
    assert order.steps_per_epoch == 7
    seen = Counter(order.step(step)[1][0][1] for step in range(7 * epochs))
    found = np.array([seen[row] for row in range(6)]) / epochs
    assert np.abs(found - weights).max() < 0.04  # four standard deviations of a fair coin


def test_kinds_and_halves_change_places_from_epoch_to_epoch():
    kinds, weights = np.repeat([0, 1], 20), np.repeat([1.0, 0.5], 20)
    order = TrainingOrder(40, 2, 0, kinds, weights)
    assert order.steps_of_kind == {0: 10, 1: 5}
    epochs = [[order.step(e * 15 + i)[1] for i in range(15)] for e in range(3)]
    assert len({tuple(int(kinds[step[0][1]]) for step in epoch) for epoch in epochs}) == 3
    assert len({frozenset(key[1] for step in epoch for key in step if key[1] >= 20) for epoch in epochs}) == 3


# ---- batches


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(2, 6), micro=st.integers(1, 4), start=st.integers(0, 5), seed=st.integers(0, 2))
def test_resuming_and_sharing_change_nothing(folders, batch, micro, start, seed):
    dataset = training(mixture(folders, Visual.suffixes, [1, 2.5]), seed)
    order = order_of(dataset, batch, seed)

    def take(count, **options):
        batches = training_batches(dataset, order, HERE, micro=micro, **options)
        found = list(islice(batches, count))
        batches.close()
        return found

    whole = take(start + 2)
    ranks = [take(start + 2, rank=rank, world=2) for rank in range(2)]
    for number, step in enumerate(whole):
        shared = [part for rank in ranks for part in rank[number]]
        for key in ("index", "seed", "video"):
            assert torch.equal(torch.cat([m[key] for m in shared]), torch.cat([m[key] for m in step]))
        assert {m["video"].shape[1] for m in step} in ({2}, {4})
    for again, before in zip(take(2, start_step=start), whole[start:], strict=True):
        assert all(torch.equal(a["video"], b["video"]) for a, b in zip(again, before, strict=True))


def test_workers_change_nothing(folders):
    dataset = training(mixture(folders, Visual.suffixes, [2, 1]))
    steps = []
    for loader in (HERE, Loader(workers=2, start_method="fork")):
        batches = training_batches(dataset, order_of(dataset, 3), loader, micro=2)
        steps.append(list(islice(batches, 7)))
        batches.close()
    for here, there in zip(*steps, strict=True):
        assert all(torch.equal(a["video"], b["video"]) for a, b in zip(here, there, strict=True))


def test_a_file_that_is_seen_twice_is_cropped_anew(folders):
    dataset = training(mixture([folders[1]], Visual.suffixes))
    first, second = dataset[0, 3], dataset[0, 3, 1]
    assert len({int(sample["seed"]) for sample in first + second}) == 4
    assert not torch.equal(first[0]["video"], second[0]["video"])


def test_what_stands_in_for_a_bad_file_is_of_its_kind(folders, tmp_path):
    rows = [Row(str(tmp_path / "gone.png")), Row(str(tmp_path / "gone.mp4"))]
    rows += [Row(str(path)) for folder in folders for path in sorted(folder.iterdir())]
    dataset = training(Manifest.of(rows))
    for epoch in range(6):
        for index, frames in ((0, 2), (1, 4)):
            [sample, _] = dataset[epoch, index]
            assert sample["video"].shape[1] == frames
            assert [path for path, _ in sample["bad"]] == [rows[index].path]
    alone = training(Manifest.of(rows[:3]))  # one image, the bad clip has no other
    with pytest.raises(UserError, match="1 files in a row"):
        alone[0, 1]


def test_evaluation_keeps_the_order_and_never_mixes(folders):
    images, clips = (sorted(folder.iterdir()) for folder in folders)
    rows = [Row(str(path)) for pair in zip(images, clips, strict=False) for path in pair]
    rows += [Row(str(folders[0] / f"{i}.png")) for i in (6, 7, 8)]
    dataset = Dataset(Manifest.of(rows), Data(Visual(Dense(4, 1)), clips=2), None, training=False, seed=0)
    batches = list(evaluation_batches(dataset, HERE, batch=2))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(rows)))
    shapes = [(len(batch["index"]), *batch["video"].shape[1:4:2]) for batch in batches]
    assert shapes == [(1, 1, 2), (1, 2, 4)] * 6 + [(2, 1, 2), (1, 1, 2)]


# ---- folders together


def test_a_mixture_remembers_weights(folders, tmp_path):
    manifest = mixture(folders, Visual.suffixes, [1, 2.5])
    assert manifest.weights is not None
    assert manifest.weights.tolist() == [1.0] * 9 + [2.5] * 6
    manifest.save(tmp_path / "manifest.parquet")
    again = Manifest.load(tmp_path / "manifest.parquet")
    assert again.weights is not None
    assert again.weights.tolist() == manifest.weights.tolist()
    assert mixture(folders, Visual.suffixes).weights is None
    assert mixture(folders, Visual.suffixes).hash == Manifest.scan(folders, Visual.suffixes).hash


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["0", "1"], "--data-weight 0: a weight is a number above 0"),
        (["-1", "1"], "--data-weight -1: a weight"),
        (["nan", "1"], "--data-weight nan"),
        (["inf", "1"], "--data-weight inf"),
        (["many", "1"], "--data-weight many"),
        (["1"], "1 of them, but 2 of --data"),
        (2, "1 of them, but 2 of --data"),
    ],
)
def test_bad_weights(given, words):
    with pytest.raises(UserError, match=words):
        parsed_weights(given, 2)
    assert parsed_weights(["1", "0.5"], 2) == [1.0, 0.5]
    assert parsed_weights(3, 1) == [3.0]
    assert parsed_weights((), 2) == []


def labelled(folder, *names, of=".png"):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(2):
            PillowImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name / f"{i}{of}")
    return folder


def test_bad_mixtures(folders, tmp_path):
    images, clips = folders
    suffixes = Visual.suffixes
    with pytest.raises(UserError, match=r"given twice\. To see"):
        mixture([images, clips, images], suffixes)
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(UserError, match="given twice and as"):
        mixture([images, tmp_path / "link"], suffixes)
    one = labelled(tmp_path / "one", "a", "b")
    with pytest.raises(UserError, match=r"belongs to --data .*one and to --data .*one/a"):
        mixture([one, one / "a"], suffixes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no file ends in"):
        mixture([images, tmp_path / "empty"], suffixes)
    with pytest.raises(UserError, match=r"of the 9 files of .* none would be seen"):
        mixture([images, clips], suffixes, [0.05, 1])
    with pytest.raises(UserError, match="no files"):
        mixture([], suffixes)


def test_labels_that_cannot_be_learned_together(folders, tmp_path):
    one = labelled(tmp_path / "one", "a", "b")
    told: list[str] = []
    with pytest.raises(UserError, match="has no labels, other folders have"):
        mixture([one, folders[1]], Visual.suffixes, labelled=True)
    assert len(mixture([one, folders[1]], Visual.suffixes)) == 10  # nobody asks for labels
    other = labelled(tmp_path / "other", "b", "c")
    assert mixture([one, other], Visual.suffixes, labelled=True, warn=told.append).classes == ["a", "b", "c"]
    assert told == []
    third = labelled(tmp_path / "third", "x", "y")
    mixture([one, third], Visual.suffixes, labelled=True, warn=told.append)
    assert len(told) == 1
    assert told[0].startswith("no class in common with the other folders: ")
    assert told[0].endswith("third; one classifier is trained for all 4 classes")
    (tmp_path / "several").mkdir()
    PillowImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "several" / "0.png")
    (tmp_path / "several" / "labels.csv").write_text("path,label\n0.png,b;c\n", encoding="utf-8")
    with pytest.raises(UserError, match="several may have several labels each"):
        mixture([other, tmp_path / "several"], Visual.suffixes, labelled=True)
