"""Batches are a function of (seed, step): workers, processes and interruptions change nothing."""

from __future__ import annotations

import os
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from unveil.data import (
    Dataset,
    HorizontalFlip,
    Image,
    Manifest,
    RandomResizedCrop,
    Row,
    TrainingOrder,
    evaluation_batches,
    normalised,
    training_batches,
)
from unveil.data.loader import collate
from unveil.data.workers import num_workers
from unveil.errors import UserError
from unveil.recipe import Data, Loader

HERE = Loader(workers=0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(13):
        path = folder / f"{i:02}.png"
        PillowImage.fromarray(rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)).save(path)
        rows.append(Row(str(path), "abc"[i % 3]))
    return Manifest.of(rows)


def training(manifest: Manifest, seed: int = 0, **options) -> Dataset:
    data = Data(Image(), transform=[RandomResizedCrop(8), HorizontalFlip()], **{"repeats": 2, "erase": 0.5} | options)
    return Dataset(manifest, data, ["a", "b", "c"], training=True, seed=seed)


def evaluation(manifest: Manifest) -> Dataset:
    return Dataset(manifest, Data(Image()), ["a", "b", "c"], training=False, seed=0)


def take(count: int, dataset: Dataset, order: TrainingOrder, loader: Loader = HERE, **options) -> list[list[dict]]:
    batches = training_batches(dataset, order, loader, **options)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


def assert_same(a: list[list[dict]], b: list[list[dict]]) -> None:
    assert [len(step) for step in a] == [len(step) for step in b]
    for x, y in zip([m for step in a for m in step], [m for step in b for m in step], strict=True):
        assert x.keys() == y.keys()
        for key in x:
            assert x[key] == y[key] if key == "bad" else torch.equal(x[key], y[key])


# ---- the order


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5), step=st.integers(0, 100))
def test_order(count, batch, seed, step):
    order = TrainingOrder(count, batch, seed)
    assert order.batch == min(count, batch)
    assert order.steps_per_epoch == count // order.batch
    epoch, keys = order.step(step)
    assert epoch == step // order.steps_per_epoch
    assert len(keys) == order.batch
    assert {e for e, _ in keys} == {epoch}
    begin = epoch * order.steps_per_epoch
    rows = [row for s in range(begin, begin + order.steps_per_epoch) for _, row in order.step(s)[1]]
    assert len(set(rows)) == len(rows) == order.steps_per_epoch * order.batch  # each row once at most
    assert set(rows) <= set(range(count))
    assert TrainingOrder(count, batch, seed).step(step) == (epoch, keys)


def test_orders_differ():
    rows = {
        tuple(TrainingOrder(20, 20, seed).step(epoch)[1][i][1] for i in range(20))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(rows) == 4
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(ValueError):
            TrainingOrder(*bad, 0)


# ---- training


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(2, 13),
    micro=st.integers(1, 6),
    start=st.integers(0, 6),
    world=st.integers(1, 2),
    seed=st.integers(0, 3),
)
def test_resuming_and_sharing_change_nothing(manifest, batch, micro, start, world, seed):
    dataset = training(manifest, seed)
    order = TrainingOrder(len(manifest), batch, seed)
    whole = take(start + 2, dataset, order, micro=micro)
    assert_same(take(2, dataset, order, start_step=start, micro=micro), whole[start:])
    assert all(len(m["index"]) <= micro * 2 for step in whole for m in step)
    ranks = [take(start + 2, dataset, order, micro=micro, rank=rank, world=world) for rank in range(world)]
    for number, step in enumerate(whole):
        shared = [m for rank in ranks for m in rank[number]]
        for key in ("index", "seed", "image", "label"):
            assert torch.equal(torch.cat([m[key] for m in shared]), torch.cat([m[key] for m in step]))
        assert torch.cat([m["index"] for m in step])[::2].tolist() == [row for _, row in order.step(number)[1]]


# One spawned worker only: each imports PyTorch anew, which takes seconds.
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_change_nothing(manifest, method, workers):
    dataset = training(manifest, mixup=0.8, cutmix=1.0)
    order = TrainingOrder(len(manifest), 5, 0)
    state = torch.get_rng_state()
    here = take(4, dataset, order, micro=2, start_step=1)
    there = take(4, dataset, order, Loader(workers=workers, start_method=method), micro=2, start_step=1)
    assert_same(here, there)
    assert torch.equal(torch.get_rng_state(), state)  # the training's own random numbers are not touched


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("views", [(), ([RandomResizedCrop(128), HorizontalFlip()],)])
def test_pictures_travel_as_bytes(manifest, workers, views):
    """…laid out as the transforms leave them, a quarter of the memory; what becomes of them is the same, bit for bit."""
    data = Data(Image(), transform=[RandomResizedCrop(128)], views=views, repeats=2)  # more than is worth sharing
    dataset = Dataset(manifest, data, ["a", "b", "c"], training=True, seed=0)
    loader = Loader(workers=workers, start_method="fork" if workers else "")
    order = TrainingOrder(13, 4, 0)
    [[batch]] = take(1, dataset, order, loader, micro=4)
    assert batch["image"].dtype == torch.uint8
    made = normalised(data, batch)
    samples = [sample for key in order.step(0)[1] for sample in dataset[key]]
    assert samples[0]["image"].dtype == torch.float32
    assert torch.equal(made["image"], torch.stack([sample["image"] for sample in samples]))
    assert made["image"].is_contiguous()
    assert made.keys() == batch.keys()
    assert all(made[key] is batch[key] for key in batch if key != "image")
    assert torch.equal(normalised(data, made)["image"], made["image"])
    for more in ({"erase": 0.5}, {"mixup": 0.8}):  # these come after normalisation
        [[batch]] = take(1, training(manifest, **{"erase": 0.0} | more), order, loader, micro=4)
        assert batch["image"].dtype == torch.float32


def test_two_epochs_differ(manifest):
    dataset = training(manifest)
    first, second = take(2, dataset, TrainingOrder(13, 13, 0), micro=13)
    places = [b[0]["index"].argsort(stable=True) for b in (first, second)]
    assert not torch.equal(first[0]["image"][places[0]], second[0]["image"][places[1]])


def test_mixing(manifest):
    order = TrainingOrder(13, 13, 0)
    plain, mixup, either = (
        joined(take(8, training(manifest, **more), order, micro=14))
        for more in ({}, {"mixup": 0.8}, {"mixup": 0.8, "cutmix": 1.0})
    )
    kinds = []
    for before, mixed, other in zip(plain, mixup, either, strict=True):
        hard = torch.nn.functional.one_hot(before["label"], 3).float()
        for after in (mixed, other):
            assert type(after["image"]) is torch.Tensor
            assert (after["label"].dtype, after["label"].shape) == (torch.float32, (26, 3))
            torch.testing.assert_close(after["label"].sum(1), torch.ones(26))
        # Two crops of each row: a row's crop is mixed with the neighbour's, never with the other crop of its own file.
        partner = [i ^ 2 for i in range(24)]
        for row in range(24):
            a, b = before["image"][row], before["image"][partner[row]]
            if (hard[row] != hard[partner[row]]).any():
                # The label tells the share that is left; the picture is mixed by the same.
                share = (mixed["label"][row] * hard[row]).sum()
                torch.testing.assert_close(mixed["image"][row], share * a + (1 - share) * b, atol=1e-5, rtol=1e-5)
            kinds.append("cutmix" if ((other["image"][row] == a) | (other["image"][row] == b)).all() else "mixup")
        assert torch.equal(mixed["image"][24:], before["image"][24:])  # the odd row out
        assert torch.equal(mixed["label"][24:], hard[24:])
    assert 0.3 < kinds.count("cutmix") / len(kinds) < 0.7
    unlabelled = Dataset(manifest, training(manifest, mixup=0.8).data, None, training=True, seed=0)
    assert torch.equal(joined(take(1, unlabelled, order, micro=14))[0]["image"], plain[0]["image"])


def joined(steps):
    """Each step's micro-batches as one."""
    return [
        {key: torch.cat([micro[key] for micro in step]) for key in step[0] if key != "bad"} for step in steps
    ]  # fmt: skip


@given(st.integers(1, 13), st.integers(1, 4), st.integers(1, 13))
@settings(max_examples=15)
def test_mixing_does_not_depend_on_processes_and_micro_batches(manifest, batch, world, micro):
    order = TrainingOrder(13, max(batch, world), 0)
    dataset = training(manifest, mixup=0.8, cutmix=1.0)
    whole = joined(take(1, dataset, order, micro=14))[0]
    ranks = [take(1, dataset, order, micro=micro, rank=rank, world=world)[0] for rank in range(world)]
    assert len({len(chunks) for chunks in ranks}) == 1  # processes meet in each micro-batch
    there = joined([[chunk for chunks in ranks for chunk in chunks]])[0]
    if order.batch >= 2 * world:  # with less than a pair for each process, pairs are made within them
        assert all(torch.equal(whole[key], there[key]) for key in whole)
    else:
        assert torch.equal(whole["seed"], there["seed"])


def test_mixing_multi_hot_and_clips(manifest):
    dataset = training(manifest, mixup=0.8)
    dataset = Dataset(manifest, dataset.data, dataset.classes, training=True, seed=0, multi_label=True)
    batch = take(1, dataset, TrainingOrder(13, 4, 0), micro=4)[0][0]
    assert batch["label"].shape == (8, 3)
    from unveil.data import Dense, Video
    from unveil.data.loader import mix

    clips = {"video": torch.randn(4, 3, 2, 8, 8), "label": torch.arange(4) % 3, "seed": torch.arange(4), "bad": []}
    dataset.data.signal = Video(Dense(2, 1))
    mixed = mix(clips, dataset)
    assert mixed["video"].shape == (4, 3, 2, 8, 8)
    assert not torch.equal(mixed["video"], clips["video"])


def test_bad_files_are_listed(manifest, tmp_path):
    (tmp_path / "bad.png").write_text("no")
    mixed = Manifest.of([Row(str(tmp_path / "bad.png"), "a"), *manifest])
    [step] = take(1, training(mixed), TrainingOrder(14, 14, 0), micro=5)
    bad = [pair for m in step for pair in m["bad"]]
    assert [path for path, _ in bad] == [str(tmp_path / "bad.png")]
    assert sum(len(m["index"]) for m in step) == 28


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_for_the_user_arrives_as_such(tmp_path, workers):
    (tmp_path / "bad.png").write_text("no")
    dataset = training(Manifest.of([Row(str(tmp_path / "bad.png"), "a")] * 3))
    with pytest.raises(UserError, match=r"^3 files in a row cannot be decoded") as caught:
        take(1, dataset, TrainingOrder(3, 3, 0), Loader(workers=workers, start_method="fork" if workers else ""))
    assert "Traceback" not in str(caught.value)


class Dying(Image):
    def read(self, row, generator=None, crop=None):
        os._exit(1)


def test_a_workers_death_is_an_error(manifest):
    dataset = Dataset(manifest, Data(Dying()), None, training=True, seed=0)
    with pytest.raises(UserError, match="a loader worker has died"):
        take(1, dataset, TrainingOrder(13, 4, 0), Loader(workers=1, start_method="fork"))


def test_what_cannot_be_shared(manifest):
    dataset = training(manifest)
    with pytest.raises(UserError, match="--devices"):
        next(training_batches(dataset, TrainingOrder(13, 2, 0), HERE, world=3))
    with pytest.raises(ValueError):
        next(training_batches(dataset, TrainingOrder(13, 2, 0), HERE, micro=0))
    with pytest.raises(ValueError):
        next(training_batches(evaluation(manifest), TrainingOrder(13, 2, 0), HERE))
    with pytest.raises(ValueError):
        next(evaluation_batches(dataset, HERE, 2))


def test_different_shapes_are_explained(manifest, tmp_path):
    PillowImage.new("RGB", (5, 5)).save(tmp_path / "small.png")
    mixed = Manifest.of([*manifest, Row(str(tmp_path / "small.png"), "a")])
    with pytest.raises(UserError, match="End the transforms with a crop"):
        list(evaluation_batches(evaluation(mixed), HERE, 14))


# ---- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_in_order_once(manifest, workers):
    batches = list(
        evaluation_batches(evaluation(manifest), Loader(workers=workers, start_method="fork" if workers else ""), 5)
    )
    assert [len(b["index"]) for b in batches] == [5, 5, 3]
    assert torch.cat([b["index"] for b in batches]).tolist() == list(range(13))
    assert batches[0]["image"].shape == (5, 1, 3, 20, 24)
    shares = [list(evaluation_batches(evaluation(manifest), HERE, 4, rank, 2)) for rank in (0, 1)]
    assert sorted(torch.cat([b["index"] for share in shares for b in share]).tolist()) == list(range(13))
    assert list(evaluation_batches(evaluation(manifest.select([0])), HERE, 4, 1, 2)) == []


@settings(max_examples=40, deadline=None)
@given(bad=st.lists(st.booleans(), min_size=1, max_size=10), batch=st.integers(1, 4))
def test_evaluation_leaves_bad_files_out_and_lists_them(manifest, bad, batch):
    rows = [Row(f"/nowhere/{i}.png", "a") if b else manifest.row(i) for i, b in enumerate(bad)]
    batches = evaluation_batches(evaluation(Manifest.of(rows)), HERE, batch)
    if all(bad):
        with pytest.raises(UserError, match="none of the"):
            list(batches)
        return
    found = list(batches)
    assert all(len(b["index"]) == len(b["image"]) > 0 for b in found)
    assert torch.cat([b["index"] for b in found]).tolist() == [i for i, b in enumerate(bad) if not b]
    assert [path for b in found for path, _ in b["bad"]] == [f"/nowhere/{i}.png" for i, b in enumerate(bad) if b]


def test_collate_and_workers():
    assert collate([{"bad": [("a", "b")]}], ["image"]) == {"bad": [("a", "b")]}
    assert num_workers(Loader(workers=3)) == 3
    assert num_workers(Loader(workers=-1)) == len(os.sched_getaffinity(0)) - 1


def test_forking_does_not_warn(manifest, monkeypatch):
    fork = os.fork

    def warns():
        warnings.warn(
            "This process is multi-threaded, use of fork() may lead to deadlocks", DeprecationWarning, stacklevel=2
        )
        return fork()

    monkeypatch.setattr(os, "fork", warns)  # as Python 3.12 does
    take(1, training(manifest), TrainingOrder(13, 2, 0), Loader(workers=1, start_method="fork"))


def test_a_worker_stacks_in_shared_memory(monkeypatch):
    samples = [{"video": torch.randn(3, 4, 64, 64), "bad": []} for _ in range(3)]
    alone = collate(samples, ["video"])["video"]
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: "a worker")
    shared = collate(samples, ["video"])["video"]
    assert shared.is_shared()
    assert not alone.is_shared()
    assert shared.is_contiguous()
    torch.testing.assert_close(shared, alone, rtol=0, atol=0)
