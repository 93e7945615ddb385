"""What resumption needs, written so that a kill at any moment leaves the last good one.

A checkpoint is tensors and plain numbers only, and is read with `weights_only=True`: nothing is ever unpickled into code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unveil.errors import UserError
from unveil.run import replacing

KEEP = 2


def folder(run: Path) -> Path:
    return run / "checkpoints"


def files(run: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted(folder(run).glob("step-*.pt"), reverse=True)


def save(run: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint in one step and drop all but the last `KEEP`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = folder(run) / f"step-{step:09d}.pt"
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
        for old in files(run)[KEEP:]:
            old.unlink()
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
        raise UserError(
            f"the checkpoint {path} could not be written: {error}. Free some space, then run the same "
            "command again: it resumes from the checkpoint before."
        ) from error
    return path


def latest(run: Path, warn: Any) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; `warn(text)` is told of those that cannot."""
    for path in files(run):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            warn(f"{path} cannot be read ({str(error).splitlines()[0]}); the checkpoint before it is used.")
    return None


def save_weights(run: Path, objective: nn.Module) -> Path:
    """The objective's state as safetensors: what evaluation, prediction and `--start` read."""
    from safetensors.torch import save_file

    path = run / "weights.safetensors"
    state = {name: value.detach().cpu().contiguous().clone() for name, value in objective.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary)
    return path
