"""In which order rows are learned from: a function of (seed, step)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unveil.data.dataset import hash63

Key = tuple[int, ...]  # (epoch, row), or (epoch, row, which time in this epoch) where that is not the first


class TrainingOrder:
    """Which rows make each step, without end: every epoch a new permutation, its incomplete last batch left out.

    Rows of several kinds never share a batch: each kind is permuted and cut into batches by itself, and all their batches are
    shuffled. A row of weight w is seen w times in an epoch on average: as often as w has whole parts, and once more in as many
    epochs as the rest says, drawn anew in each. All rows of one weight together are seen as often as their weights add up to,
    or once less or more.

    Args:
        num_samples: rows of the data set.
        batch: rows of a step; all of them when there are fewer (of the kind that has fewest).
        seed: of the run.
        kinds: of each row, int64 [num_samples]; None: all are of one.
        weights: of each row, float64 [num_samples]; None: each is seen once in an epoch.
    """

    def __init__(
        self,
        num_samples: int,
        batch: int,
        seed: int,
        kinds: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ):
        if num_samples < 1 or batch < 1:
            raise ValueError(f"at least one sample and a batch of one are needed, got {num_samples} and {batch}")
        self.num_samples = num_samples
        self.seed = seed
        kinds = np.zeros(num_samples, np.int64) if kinds is None else kinds
        weights = np.ones(num_samples) if weights is None else weights
        self._pools = {
            int(kind): _Pool(
                torch.from_numpy(np.flatnonzero(kinds == kind)), torch.from_numpy(weights[kinds == kind].astype(float))
            )
            for kind in np.unique(kinds)
        }
        counts = {kind: pool.samples for kind, pool in self._pools.items()}
        self.batch = min(batch, *counts.values())
        self.steps_of_kind = {kind: count // self.batch for kind, count in counts.items()}
        """Steps of an epoch that show each kind."""
        self.steps_per_epoch = sum(self.steps_of_kind.values())
        self._epochs: dict[int, Tensor] = {}

    def step(self, step: int) -> tuple[int, list[Key]]:
        """The epoch of a step (counted from 0) and its (epoch, row) pairs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[place].tolist()
        return epoch, [(epoch, row, time) if time else (epoch, row) for row, time in rows]

    def _epoch(self, epoch: int) -> Tensor:
        """The rows of an epoch's steps, and which time in it each is seen, int64 [steps, batch, 2]."""
        if epoch not in self._epochs:
            several = len(self._pools) > 1
            batches = []
            for kind, pool in self._pools.items():
                rows = pool.rows_of(self.seed, epoch, kind)
                order = _permutation(len(rows), "order", self.seed, epoch, *([kind] if several else []))
                kept = self.steps_of_kind[kind] * self.batch
                batches.append(rows[order[:kept]].unflatten(0, (-1, self.batch)))
            made = torch.cat(batches)
            if several:
                made = made[_permutation(len(made), "kinds", self.seed, epoch)]
            self._epochs = {other: self._epochs[other] for other in list(self._epochs)[-1:]} | {epoch: made}
        return self._epochs[epoch]


class _Pool(NamedTuple):
    """Rows of one kind and how often each is seen in an epoch, float64."""

    rows: Tensor
    weights: Tensor

    @property
    def samples(self) -> int:
        """How many samples of an epoch are theirs."""
        return max(1, round(float(self.weights.sum())))

    def rows_of(self, seed: int, epoch: int, kind: int) -> Tensor:
        """Those of an epoch, and which time each is seen in it, int64 [samples, 2].

        The rows lie on a line, each as long as it weighs, and are taken at steps of one from a random place in the first
        (systematic sampling): no draw is as even and has the same averages.
        """
        if bool((self.weights == 1).all()):
            return torch.stack([self.rows, torch.zeros_like(self.rows)], 1)
        shuffled = _permutation(len(self.rows), "drawn", seed, epoch, kind)
        order = shuffled[self.weights[shuffled].argsort(stable=True)]  # those of one weight side by side
        ends = self.weights[order].cumsum(0)
        ends = (ends * (self.samples / ends[-1])).round(decimals=9)  # without the traces of rounding
        ends[-1] = self.samples
        first = torch.rand((), dtype=torch.float64, generator=_generator("first", seed, epoch, kind))
        taken = (ends - first).ceil().clamp(min=0).long()
        times = taken.diff(prepend=torch.zeros(1, dtype=torch.long))
        time = torch.arange(int(taken[-1])) - (taken - times).repeat_interleave(times)
        return torch.stack([self.rows[order].repeat_interleave(times), time], 1)


def _generator(*drawn_from: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(hash63(*drawn_from))


def _permutation(count: int, *drawn_from: int | str) -> Tensor:
    return torch.randperm(count, generator=_generator(*drawn_from))
