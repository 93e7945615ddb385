"""An objective in two processes, each with its share of the batch, next to the same in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from unveil.training import processes

ROWS = (8, 7)
"""Samples of a batch: shares of one size, and of two."""


class Task(NamedTuple):
    """What every process does; functions of a module, since they are sent to it."""

    make: Callable[[], nn.Module]
    batch: Callable[[int], dict[str, Tensor]]
    folder: Path


def learn_what_one_learns(
    make: Callable[[], nn.Module], batch: Callable[[int], dict[str, Tensor]], folder: Path
) -> None:
    """Loss and every gradient of two processes are those of one.

    Args:
        make: the objective, the same every time.
        batch: rows → a batch of so many.
        folder: an empty one.
    """
    processes.start(_in_each, Task(make, batch, folder), 2)
    for rows in ROWS:
        network = make()
        loss = network(batch(rows))["loss"]
        loss.backward()
        expected = [loss.detach(), *[p.grad for p in network.parameters()]]
        for found, one in zip(torch.load(folder / f"{rows}.pt", weights_only=True), expected, strict=True):
            torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-6)


def _in_each(task: Task) -> None:
    processes.join(torch.device("cpu"))
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for rows in ROWS:
        network = task.make()
        low, high = (rows * r // world for r in (rank, rank + 1))
        share = (high - low) / rows
        loss = network({key: value[low:high] for key, value in task.batch(rows).items()})["loss"]
        (loss * share * world).backward()
        numbers = [loss.detach() * share, *[p.grad / world for p in network.parameters()]]  # type: ignore[operator]
        for number in numbers:
            distributed.all_reduce(number)
        if rank == 0:
            torch.save(numbers, task.folder / f"{rows}.pt")
