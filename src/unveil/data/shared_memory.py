"""Memory in which workers hand over what they have read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unveil.errors import UserError


def empty(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As `torch.empty_strided` of what is dense; in a worker shared with its parent, so that nothing is copied there once more.

    Raises:
        UserError: no room.
    """
    count = torch.Size(shape).numel()
    if torch.utils.data.get_worker_info() is None or not count:
        return torch.empty_strided(shape, strides, dtype=dtype)
    try:
        storage = torch.UntypedStorage._new_shared(count * dtype.itemsize)
    except RuntimeError as error:
        raise _no_room(error) from error
    return torch.empty(0, dtype=dtype).set_(storage, 0, tuple(shape), tuple(strides))  # pyright: ignore[reportCallIssue]


def share(batch: Any) -> None:
    """Put what is not yet shared where it is, in a worker, while an error can be told: the thread that would do so on the way prints
    it and goes on, and the parent waits for ever.

    Raises:
        UserError: no room.
    """
    if torch.utils.data.get_worker_info() is None:
        return
    try:
        for tensor in _tensors(batch):
            tensor.share_memory_()
    except RuntimeError as error:
        raise _no_room(error) from error


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)


def _no_room(error: RuntimeError) -> UserError:
    return UserError(
        f"no room in the memory that processes share: {str(error).splitlines()[0]}. Enlarge it (/dev/shm; of a container --shm-size), "
        "or read in this process: --workers 0, of a training --loader.workers 0."
    )
