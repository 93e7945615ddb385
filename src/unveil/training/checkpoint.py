"""What resumption needs, written so that a kill at any moment leaves the last good one.

A checkpoint is tensors and plain numbers only, and is read with `weights_only=True`: nothing is ever unpickled into code.
Its tensors are whole and carry the network's own names, whatever number of processes held them in which pieces; so any
number of processes reads what any other number wrote.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.optim.swa_utils import AveragedModel

from unveil.storage import read_lines, replacing

FORMAT = 2
SCORES = ("val_top1", "val_map", "knn", "val_retrieval")
"""What the best weights are the best in: the first of these that a run measures."""

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def folder(run: Path) -> Path:
    return run / "checkpoints"


def files(run: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted(folder(run).glob("step-*.pt"), reverse=True)


def state_of(
    objective: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None, step: int
) -> dict[str, Any]:
    """All that the next step depends on, on the CPU. Of several processes each has to call; the first gets it."""
    weights, state = get_state_dict(objective, optimizer, options=_WHOLE)
    found: dict[str, Any] = {"format": FORMAT, "step": step, "objective": weights, "optimizer": state}
    if average is not None:
        found["average"] = get_model_state_dict(average.module, options=_WHOLE)
        found["averaged"] = average.n_averaged.cpu()
    return found


def restore(
    state: dict[str, Any], objective: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> int:
    """Put a state back; returns the steps done."""
    set_state_dict(
        objective,
        optimizer,
        model_state_dict=state["objective"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )
    for parameter, own in optimizer.state.items():
        # In memory as the parameter is, whoever wrote it: fused kernels read both as one run of numbers, and check nothing.
        own.update(
            {
                name: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
                for name, value in own.items()
                if isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            }
        )
    if average is not None:
        set_model_state_dict(average.module, state["average"], options=StateDictOptions(full_state_dict=True))
        average.n_averaged.copy_(state["averaged"])
    return state["step"]


def save(run: Path, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint in one step and drop all but the last `keep`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path = folder(run) / f"step-{state['step']:09d}.pt"
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own words for a failed write are a position in the file
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
    for old in files(run)[keep:]:
        old.unlink()
    return path


def latest(run: Path, objective: nn.Module, warn: Any) -> dict[str, Any] | None:
    """The newest checkpoint that can be read and fits; `warn(text)` is told of those that cannot.

    Args:
        run: its folder.
        objective: the network that is to go on, not yet divided among processes.
        warn: takes a sentence.
    """
    found = files(run)
    for path in found:
        try:
            # Mapped, not read: a damaged file is noticed before memory is spent on it.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return _checked(state, objective)
        except (
            RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError
        ) as error:  # fmt: skip
            warn(f"{path} cannot be used ({_first_line(error)}); the checkpoint before it is.")
    if found:
        warn(f"none of the {len(found)} checkpoints in {folder(run)} can be used: training begins again at step 1.")
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _checked(state: Any, objective: nn.Module) -> dict[str, Any]:
    if not isinstance(state, dict) or not {"format", "step", "objective", "optimizer"} <= set(state):
        raise ValueError("it is no checkpoint of unveil")
    if state["format"] != FORMAT:
        raise ValueError(f"it is of format {state['format']}, this unveil writes {FORMAT}")
    own = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    its = {name: tuple(value.shape) for name, value in state["objective"].items()}
    if own != its:
        strange = sorted(name for name in {*own, *its} if own.get(name) != its.get(name))
        raise ValueError(f"it is of another network: {', '.join(strange[:3])}")
    return state


def clean(run: Path) -> None:
    """Remove what writers that were killed have left half written."""
    for path in [*run.glob(".*.tmp"), *folder(run).glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def save_weights(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A state dict as safetensors: what evaluation, prediction and `--start` read."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, temporary)
    return path


def weights_of(objective: nn.Module) -> dict[str, Any]:
    """The whole state dict of a network; of several processes each has to call, the first gets it."""
    return get_model_state_dict(objective, options=_WHOLE)


class Best:
    """Which step of a run scored best so far on what is held out, going by its log up to the step where it goes on."""

    def __init__(self, run: Path, done: int):
        self.value, self.step = float("-inf"), 0
        for numbers in read_lines(run / "log.jsonl"):
            if numbers["step"] <= done:
                self.better(numbers)

    def better(self, numbers: dict[str, Any]) -> bool:
        """Whether these numbers of a step hold a score above all before."""
        score = next((numbers[name] for name in SCORES if numbers.get(name) is not None), None)
        if score is None or not score > self.value:
            return False
        self.value, self.step = score, numbers["step"]
        return True
