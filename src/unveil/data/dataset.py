"""Rows of a manifest → samples. Everything random is a function of (seed, epoch, index, repeat) and of nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from unveil.data.manifest import Manifest, Row, label_names
from unveil.data.streams import Raw, as_input, crops_of, divided, joined, normalised, on_pictures, stacked
from unveil.data.transforms import CropFirst, RandomErasing, three_crops
from unveil.data.visual import kinds_of
from unveil.errors import DecodeError, UserError
from unveil.recipe import Data

Sample = dict[str, Any]

ATTEMPTS = 10
"""How many files in place of one that cannot be decoded are tried in training."""


def sample_seed(seed: int, epoch: int, index: int, repeat: int) -> int:
    """63 bits for the `repeat`-th crop of row `index` in `epoch`; unrelated for any two different arguments."""
    return hash63("sample", seed, epoch, index, repeat)


def hash63(*values: int | str) -> int:
    """63 bits that depend on all of `values`; the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(values).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with PyTorch's CPU generator seeded, and give its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the GPU, whose generator the training step is using.
        torch.default_generator.manual_seed(seed)
        yield


class Dataset(torch.utils.data.Dataset):
    """Samples of a manifest's rows.

    Training: `dataset[epoch, index]` is a list of `data.repeats` samples; the file is decoded once, then cropped anew for
    each. `dataset[epoch, index, time]` are those of a file that is seen several times in an epoch, from 0. With `data.views`
    each of them is a stack [V,…] of views with transforms of their own. Evaluation: `dataset[index]` is a list of one sample
    whose signal is [V,…], V = clips × crops views, clip by clip.

    A sample has `index`, `seed` (see `sample_seed`), the signal's streams (float32, normalised) under their keys, and, with `classes`,
    `label`: the class's index (int64; -1 where the row has none) or a multi-hot vector (float32 [classes]). Where `data.text`
    asks for it, training samples have `text`, the ids of the row's caption (int64 [L]).

    A file that cannot be decoded, or whose caption is wanted and says nothing, is never passed over in silence: the sample has
    `bad`, a list of (path, error). In training another row of its kind, which depends on (seed, epoch, index) alone, takes its
    place; in evaluation the sample has no signal.

    Args:
        manifest: the rows.
        data: of the recipe.
        classes: names in the order of their indices; None: no labels.
        training: random or deterministic samples.
        seed: of the run.
        multi_label: labels are multi-hot; None: if the manifest has rows with several.

    Raises:
        UserError: no rows, or a label that is not among `classes`; `crops` that cannot be had.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: Data,
        classes: Sequence[str] | None,
        training: bool,
        seed: int,
        multi_label: bool | None = None,
    ):
        if not len(manifest):
            raise UserError("no files: the manifest is empty.")
        self.manifest = manifest
        self.data = data
        self.classes = list(classes) if classes is not None else None
        self.training = training
        self.seed = seed
        self.multi_label = manifest.multi_label if multi_label is None else multi_label
        self._number = {name: number for number, name in enumerate(self.classes or ())}
        if self.classes is not None:
            unknown = [name for name in manifest.classes if name not in self._number]
            if unknown:
                raise UserError(f"label {unknown[0]!r} is none of the classes {', '.join(self.classes)}.")
        self.kinds = kinds_of(data.signal, manifest)
        self.weights = manifest.weights
        self._erase = RandomErasing(data.erase) if data.erase else None
        self._views: Callable[[Tensor], list[Tensor]] | None = None if training else _spatial_views(data)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: int | tuple[int, ...]) -> list[Sample]:
        if not self.training:
            return [self._evaluate(key[1] if isinstance(key, tuple) else key)]
        return [normalised(self.data, sample, batched=False) for sample in self.unnormalised(key)]

    def unnormalised(self, key: int | tuple[int, ...]) -> list[Sample]:
        """The same of training, but pictures are left as the transforms left them, uint8 [T,C,H,W] or [C,H,W]: a quarter of the
        memory on their way to the device, where `normalised` does the rest. (Erasing comes after normalisation: then both are done.)
        """
        return self._train(*(key if isinstance(key, tuple) else (0, key)))

    def _train(self, epoch: int, index: int, time: int = 0) -> list[Sample]:
        bad: list[tuple[str, str]] = []
        tried = [index]
        # The row asked for gives the seed, also when another one stands in: no two samples of an epoch share it.
        first = time * self.data.repeats
        seeds = [sample_seed(self.seed, epoch, index, first + repeat) for repeat in range(self.data.repeats)]
        while True:
            row_index = tried[-1]
            row = self.manifest.row(row_index)
            generator = torch.Generator().manual_seed(
                hash63("clip", self.seed, epoch, index, *([time] if time else []))
            )
            try:
                beside = {} if self.data.text is None else {"text": self.data.text.of(row)}
                views = self._training_views(row, generator, seeds)
                break
            except DecodeError as error:
                bad.append((row.path, str(error)))
            alike = self._alike(index)
            if len(tried) > ATTEMPTS or len(tried) == len(alike):
                raise UserError(
                    f"{len(bad)} files in a row cannot be decoded; the first: {bad[0][1]} "
                    "Are these the right files, and are they whole?"
                )
            following = hash63("instead", self.seed, epoch, index, len(tried)) % len(alike)
            while int(alike[following]) in tried:
                following = (following + 1) % len(alike)
            tried.append(int(alike[following]))
        samples = [
            self._sample(row_index, seed, row.label) | beside | view for seed, view in zip(seeds, views, strict=True)
        ]
        samples[0]["bad"] = bad
        return samples

    def _alike(self, index: int) -> Sequence[int] | np.ndarray:
        """The rows of the same kind, among them itself."""
        return range(len(self)) if self.kinds is None else np.flatnonzero(self.kinds == self.kinds[index])

    def _training_views(self, row: Row, generator: torch.Generator, seeds: Sequence[int]) -> list[dict[str, Tensor]]:
        """A view of one clip (or picture) for each seed; of a recipe with several views their stack."""
        if self.data.views:
            return self._several_views(row, generator, seeds)
        transforms = list(self.data.transform)
        first = CropFirst.of(transforms[0]) if transforms and len(seeds) == 1 else None
        rest = transforms[1:] if first else transforms
        signal = self.data.signal
        x = None if first else signal.read(row, generator)
        views = []
        for seed in seeds:
            # Not `seed` itself: masks are drawn from it, and would be tied to the crops.
            with seeded(hash63("transform", seed)):
                if first:
                    view = on_pictures(signal, signal.read(row, generator, first.box), first.resize)
                else:
                    assert x is not None
                    view = x
                views.append(self._transformed(view, rest))
        return views

    def _transformed(self, x: Raw, transforms: Sequence[Callable[[Any], Any]]) -> dict[str, Tensor]:
        """A sample as it was read → its streams, not yet normalised unless something is erased."""
        for transform in transforms:
            x = on_pictures(self.data.signal, x, transform)
        if self._erase is None:
            return divided(self.data.signal, x)
        streams = joined(self.data.signal, as_input(self.data, x))
        return divided(self.data.signal, on_pictures(self.data.signal, streams, self._erase))

    def _several_views(self, row: Row, generator: torch.Generator, seeds: Sequence[int]) -> list[dict[str, Tensor]]:
        """[V,…] for each seed: view 1 draws as the only one would, each further one from a seed of its own."""
        kinds = [self.data.transform, *self.data.views]
        moments = self.data.signal.moments(row, len(kinds), generator)
        stacks = []
        for seed in seeds:
            views = []
            for number, (x, transforms) in enumerate(zip(moments, kinds, strict=True)):
                with seeded(hash63("transform", seed, *([number] if number else []))):
                    views.append(self._transformed(x, transforms))
            for key in views[0]:
                shapes = [tuple(view[key].shape) for view in views]
                if len(set(shapes)) > 1:
                    raise UserError(f"views of different shapes, {shapes}: end all of them with one crop.")
            stacks.append(stacked(views))
        return stacks

    def _evaluate(self, index: int) -> Sample:
        row = self.manifest.row(index)
        sample = self._sample(index, sample_seed(self.seed, 0, index, 0), row.label) | {"bad": []}
        assert self._views is not None
        try:
            clips = self.data.signal.views(row, self.data.clips)
        except DecodeError as error:
            return sample | {"bad": [(row.path, str(error))]}
        cut = [view for clip in clips for view in crops_of(self.data.signal, clip, self._views)]
        return sample | stacked([as_input(self.data, view) for view in cut])

    def _sample(self, index: int, seed: int, label: str) -> Sample:
        sample: Sample = {"index": torch.tensor(index), "seed": torch.tensor(seed)}
        if self.classes is not None:
            numbers = [self._number[name] for name in label_names(label)]
            if self.multi_label:
                sample["label"] = torch.zeros(len(self.classes)).index_fill_(
                    0, torch.tensor(numbers, dtype=torch.long), 1
                )
            else:
                sample["label"] = torch.tensor(numbers[0] if numbers else -1)
        return sample


def _spatial_views(data: Data) -> Callable[[Tensor], list[Tensor]]:
    """A clip → its `data.crops` evaluation crops, not yet normalised."""
    return _Crops(list(data.evaluation), data.crops)


class _Crops:  # a class rather than a closure: spawned workers are sent it
    def __init__(self, transforms: list[Callable[[Any], Any]], crops: int):
        if crops not in (1, 3):
            raise UserError(f"--sample.crops {crops}: a view has 1 or 3 crops.")
        self.transforms = transforms
        self.size: int | None = None
        if crops == 3:
            if not transforms or not isinstance(transforms[-1], v2.CenterCrop):
                raise UserError(
                    "--sample.crops 3: three crops take the place of the CenterCrop that ends data.evaluation."
                )
            size = transforms[-1].size
            self.size = size if isinstance(size, int) else size[0]
            self.transforms = transforms[:-1]

    def __call__(self, x: Tensor) -> list[Tensor]:
        for transform in self.transforms:
            x = transform(x)
        return [x] if self.size is None else three_crops(x, self.size)
