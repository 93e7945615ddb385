"""What a recipe's network costs: parameters, multiply–adds, activation memory; counted without computing anything."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from unveil.objectives import Objective
    from unveil.recipe import Recipe


def parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def sample(recipe: Recipe) -> dict[str, Tensor]:
    """A batch of two blank samples, on the CPU, with seed and label, and a text of the full length where there are any.

    Features of one sample alone have no statistics, which batch norms of projectors and heads take. Counts are divided by two.
    """
    from unveil.data import prepared

    data = recipe.data
    views = [1 + len(data.views)] if data.views else []
    streams = prepared(data, data.signal.blank())
    none = torch.zeros(2, dtype=torch.int64)
    batch = {key: x.expand(2, *views, *x.shape).contiguous() for key, x in streams.items()}
    batch |= {"seed": none, "label": none.clone()}
    if data.text is not None:
        batch["text"] = torch.ones(2, data.text.context, dtype=torch.int64)
    return batch


def _mask(objective: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    """The argument `mask` of an objective that masks, as drawn in training."""
    return {"mask": objective.masked(batch)} if hasattr(objective, "masked") else {}


def gmacs(recipe: Recipe) -> float:
    """Multiply–adds (10⁹) of one forward pass of the objective on one sample, masks as in training; attention included.

    Counted on the meta device, so a huge model costs nothing.
    """
    objective = cast(Any, recipe.objective)
    batch = sample(recipe)
    mask = tree_map(lambda indices: indices.to("meta"), _mask(objective, batch))
    batch = {key: value.to("meta") for key, value in batch.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if hasattr(objective, "logits"):
            objective.logits(batch)
        else:
            objective(batch, **mask)
    return counter.get_total_flops() / 2e9 / len(batch["seed"])


class _Made(TorchDispatchMode):
    """Remembers every storage that is made while it is on, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in before:  # a view makes nothing
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def alive(self) -> int:
        """Bytes of what still exists."""
        return sum(size for storage, size in self.storages.values() if not storage.expired())


def kept_bytes(objective: Objective, batch: dict[str, Tensor], **arguments: Any) -> int:
    """Bytes that a forward pass leaves in memory for the backward pass; weights and the batch itself do not count."""
    with _Made() as made:
        result = objective(batch, **arguments)
    kept = made.alive()
    del result  # until here it held the graph
    return kept


@contextmanager
def recomputing(objective: nn.Module, on: bool) -> Iterator[None]:
    """With `--checkpointing true`, for a while."""
    parts: list[Any] = [module for module in objective.modules() if hasattr(module, "checkpointing")]
    before = [part.checkpointing for part in parts]
    for part in parts:
        part.checkpointing = on
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.checkpointing = value


def activation_bytes(recipe: Recipe, checkpointing: bool = False) -> int:
    """What training keeps of one sample between the forward and the backward pass, in bytes.

    In float32, of a network built on the meta device, by the kernels that PyTorch takes on a CPU: fused attention keeps no
    matrix of all pairs. Not in it: weights, gradients and the state of the optimiser; what a kernel needs only while it runs.

    Args:
        recipe: its objective has no memory behind it (meta device).
        checkpointing: blocks keep their input alone and compute the rest again.
    """
    batch = sample(recipe)
    mask = _mask(recipe.objective, batch)
    objective = copy.deepcopy(recipe.objective)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        objective.to_empty(device="cpu")
        inputs: dict[str, Tensor] = {key: mode.from_tensor(value) for key, value in batch.items()}
        hidden = tree_map(mode.from_tensor, mask)
        with recomputing(objective, checkpointing):
            return kept_bytes(objective.train(), inputs, **hidden) // len(batch["seed"])


def readable(size: float) -> str:
    """Bytes with a unit."""
    power = min(4, int(math.log(size, 1000))) if size >= 1 else 0
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
