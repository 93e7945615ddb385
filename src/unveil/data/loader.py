"""Samples → batches. The order is a function of (seed, step); workers only compute ahead, and change nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from unveil.data.dataset import Dataset, Sample, hash63, seeded
from unveil.data.sound_transforms import MixUpTogether, WaveMixUp
from unveil.data.streams import stack, streams_in
from unveil.data.training_order import Key, TrainingOrder
from unveil.data.workers import ANSWERING, Failure, load
from unveil.errors import UserError
from unveil.recipe import Data, Loader

Batch = dict[str, Any]


def training_batches(
    dataset: Dataset,
    order: TrainingOrder,
    loader: Loader,
    start_step: int = 0,
    micro: int = 32,
    rank: int = 0,
    world: int = 1,
) -> Generator[list[Batch], None, None]:
    """For each step from `start_step` on, without end, this process's micro-batches.

    The step's rows are divided into contiguous shards, one for each process, and these into chunks of at most `micro` rows (one
    more where shards are uneven), as many in each process; a row gives `repeats` samples. `batch["bad"]` lists the files that
    could not be decoded, as (path, error). Pictures are uint8, as the transforms leave them, unless samples are mixed or erased:
    `normalised(data, batch)` makes of them what the network takes, on the device where they are by then.

    Args:
        dataset: in training mode.
        order: of the rows; global over processes.
        loader: workers, prefetching.
        start_step: the first step; a run that is resumed gets the batches it would have got.
        micro: rows of a micro-batch.
        rank, world: this process, of how many.

    Raises:
        UserError: fewer rows in a batch than processes, or more than `ATTEMPTS` bad files in a row.
    """
    if not dataset.training:
        raise ValueError("training batches need a data set in training mode")
    if micro < 1 or not 0 <= rank < world:
        raise ValueError(f"micro must be positive and rank in [0, {world}), got {micro} and {rank}")
    if order.batch < world:
        raise UserError(f"a batch of {order.batch} cannot be shared by {world} devices: more data or fewer --devices.")

    # Mixup and cutmix take rows two by two, and no pair may be torn apart.
    unit = 2 if mixes(dataset.data) and order.batch >= 2 * world else 1

    def chunks(step: int) -> list[list[Key]]:
        keys = order.step(step)[1]
        units = [keys[i : i + unit] for i in range(0, len(keys), unit)]
        # As many chunks in every process, since a divided network's processes meet in each of them.
        most, least = -(-len(units) // world), len(units) // world
        count = min(least, -(-most // max(1, micro // unit)))
        mine = _parts(units, world)[rank]
        return [[key for part in chunk for key in part] for chunk in _parts(mine, count)]

    batches = load(_Batches(dataset), _Steps(chunks, start_step), loader)
    try:
        step = start_step
        while True:
            yield [next(batches) for _ in chunks(step)]
            step += 1
    finally:
        batches.close()


def evaluation_batches(dataset: Dataset, loader: Loader, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """The rows in order, once; the signal is [B,V,…] with V views of each.

    Files that cannot be decoded are left out and listed as (path, error) in `batch["bad"]`.

    Args:
        dataset: in evaluation mode.
        loader: workers, prefetching.
        batch: rows at once.
        rank, world: every `world`-th row from `rank` on.

    Raises:
        UserError: not one file can be decoded.
    """
    if dataset.training:
        raise ValueError("evaluation batches need a data set in evaluation mode")
    keys: list[Key] = [(0, row) for row in range(rank, len(dataset), world)]
    kinds = dataset.kinds
    # What cannot be stacked is not: a chunk ends where another kind begins.
    alike = [list(run) for _, run in itertools.groupby(keys, lambda key: 0 if kinds is None else int(kinds[key[1]]))]
    chunks = [run[i : i + batch] for run in alike for i in range(0, len(run), batch)]
    # Held back by one, so that bad files at the very end have a batch to be listed in.
    held: Batch | None = None
    bad: list[tuple[str, str]] = []
    following: Batch
    for following in load(_Batches(dataset), chunks, loader, ANSWERING):
        if "index" not in following:
            bad += following["bad"]
            continue
        if held is not None:
            yield held
        held = following
        held["bad"] = bad + held["bad"]
        bad = []
    if held is None:
        if not keys:  # fewer rows than processes
            return
        raise UserError(f"none of the {len(keys)} files can be decoded; the first: {bad[0][1]}")
    held["bad"] += bad
    yield held


def _parts(items: list[Any], count: int) -> list[list[Any]]:
    """`items` in `count` contiguous parts whose lengths differ by one at most."""
    cuts = [len(items) * i // count for i in range(count + 1)]
    return [items[low:high] for low, high in itertools.pairwise(cuts)]


class _Steps:
    """The micro-batches of all steps from `start` on, as a sampler."""

    def __init__(self, chunks: Any, start: int):
        self.chunks = chunks
        self.start = start

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.start
        while True:
            yield from self.chunks(step)
            step += 1


class _Batches(torch.utils.data.Dataset):
    """keys → batch: what a worker does."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        # Mixing needs numbers, as evaluation does; all else travels as bytes, a quarter of the memory.
        as_bytes = dataset.training and not mixes(dataset.data)
        self.read = dataset.unnormalised if as_bytes else dataset.__getitem__

    def __getitem__(self, keys: list[Key]) -> Batch | Failure:
        try:
            samples = [sample for key in keys for sample in self.read(key)]
            batch = collate(samples, streams_in(self.dataset.data.signal))
            return mix(batch, self.dataset) if self.dataset.training else batch
        except UserError as error:
            return Failure(error)


def collate(samples: Sequence[Sample], streams: Collection[str]) -> Batch:
    """Stack samples; those without a signal (`streams` are its keys) only leave their `bad` behind.

    Returns:
        Every tensor with a batch axis in front, and `bad`: a list of (path, error). Without any good sample only `bad`.
    """
    batch: Batch = {}
    good = [sample for sample in samples if all(key in sample for key in streams)]
    for name in good[0] if good else ():
        if name == "bad":
            continue
        tensors = [sample[name] for sample in good]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) > 1:
            raise UserError(
                f"samples of different shapes cannot be stacked: {sorted(shapes)}. End the transforms with a crop."
            )
        batch[name] = stack(tensors)
    batch["bad"] = [pair for sample in samples for pair in sample.get("bad", [])]
    return batch


def mixes(data: Data) -> bool:
    """Whether samples are mixed with one another."""
    return data.mixup > 0 or data.cutmix > 0


def mix(batch: Batch, dataset: Dataset) -> Batch:
    """Mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899) of neighbouring rows, two by two; labels become soft.

    Waveforms [B,1,L] know only mixup (`WaveMixUp`), and so do clips with their sound, both by one share; clouds of points know neither.
    A pair is mixed with probability `data.mixed`. Whether, which of the two and how much is drawn for each pair from its first
    sample's seed, so it does not depend on the other
    samples of a micro-batch. An odd row at the end stays as it is. With repeated sampling a row's crops are mixed with
    the other row's.

    Returns:
        The batch with the signal mixed and `label` float32 [B,classes]; unchanged where the recipe asks for neither.
    """
    data = dataset.data
    if not mixes(data) or "label" not in batch:
        return batch
    assert dataset.classes is not None
    repeats, label = data.repeats, batch["label"].clone()
    streams = {key: batch[key].clone() for key in streams_in(data.signal)}
    wanted = _ways(data, streams, len(dataset.classes))
    if not label.is_floating_point():
        label = functional.one_hot(label, len(dataset.classes)).float()
    for first in range(0, len(label) - 2 * repeats + 1, 2 * repeats):
        for pair in ([first + r, first + repeats + r] for r in range(repeats)):
            with seeded(hash63("mix", int(batch["seed"][pair[0]]))):
                if data.mixed < 1 and torch.rand(()).item() >= data.mixed:
                    continue
                chosen = wanted[int(torch.randint(len(wanted), ()))]
                mixed, label[pair] = chosen({key: x[pair] for key, x in streams.items()}, label[pair])
                for key, x in mixed.items():
                    streams[key][pair] = x
    return batch | streams | {"label": label}


def _ways(
    data: Data, streams: dict[str, Tensor], classes: int
) -> list[Callable[..., tuple[dict[str, Tensor], Tensor]]]:
    """How two samples of a batch may be mixed: (streams, labels) → the same, mixed.

    Raises:
        UserError: samples of this kind are not mixed so.
    """
    if len(streams) > 1:
        if data.cutmix > 0:
            raise UserError(
                "cutmix puts a part of a picture into another, and no sound belongs to it: --sample.cutmix 0."
            )
        return [MixUpTogether(data.mixup)]
    ((key, x),) = streams.items()

    def of_one(way: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
        def mixed(pair: dict[str, Tensor], label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            one, labels = way(pair[key], label)
            return {key: one}, labels

        return mixed

    return [of_one(way) for way in _ways_of_one(data, x, classes)]


def _ways_of_one(data: Data, x: Tensor, classes: int) -> list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """The same of samples of one stream: (signals, labels) → the same, mixed."""
    if x.ndim == 3:  # [B,1,L], [B,3,N]
        if x.shape[1] != 1 or data.cutmix > 0:
            what = (
                "waveforms know only mixup: --sample.cutmix 0"
                if x.shape[1] == 1
                else ("points are not mixed: --sample.mixup 0 --sample.cutmix 0")
            )
            raise UserError(f"{what}.")
        return [WaveMixUp(data.mixup)]
    return [
        _Pictures(kind(alpha=alpha, num_classes=classes))
        for kind, alpha in ((v2.MixUp, data.mixup), (v2.CutMix, data.cutmix))
        if alpha > 0
    ]


class _Pictures:
    """torchvision's mixing of pictures [B,C,H,W] and clips [B,C,T,H,W]."""

    def __init__(self, way: v2.Transform):
        self.way = way

    def __call__(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        # torchvision takes tensors for images; as a video, [B,C,T,H,W] has the axes that matter in place.
        kind = tv_tensors.Video if x.ndim == 5 else tv_tensors.Image
        mixed, label = self.way(kind(x), label)
        return mixed.as_subclass(Tensor), label
