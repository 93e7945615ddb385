"""Weights to begin with: of another run or a file for the whole (`--start`), or of another run for a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from unveil.errors import UserError
from unveil.fitting import Fitted, fit
from unveil.objectives import Objective
from unveil.recipe import Borrowed
from unveil.run import Run
from unveil.state_dict import read_state_dict


def read(source: str | Path) -> dict[str, torch.Tensor]:
    """A state dict from a run folder, a `.safetensors` file or a checkpoint (`.pt`, `.pth`) of anybody's.

    Raises:
        UserError: nothing there, or it holds more than data; see `read_state_dict`.
    """
    path = Path(source)
    if path.is_dir():
        run = Run(path)
        path = run.path / "weights.safetensors"
        if not path.is_file():
            raise UserError(f"--start {source}: the run has no weights yet. Let it finish, or run its command again.")
    if not path.is_file():
        raise UserError(f"--start {source}: no such run folder or file.")
    try:
        return read_state_dict(path)
    except UserError as error:
        raise UserError(f"--start {error}") from error


def start(objective: nn.Module, source: str | Path) -> Fitted:
    """Load every tensor whose name and shape fit; positions and patches of other shapes are made to.

    Names are the objective's (`encoder.blocks.0…`); a file that holds an encoder alone is recognised.

    Raises:
        UserError: nothing fits.
    """
    state = read(source)
    own = objective.state_dict()
    if not any(name in own for name in state) and any(f"encoder.{name}" in own for name in state):
        state = {f"encoder.{name}": value for name, value in state.items()}
    towers: Any = objective.towers
    if not any(name in own for name in state):  # of one tower of several: it is named after its signal there
        key = next((key for key in towers if any(name.startswith(f"{key}.") for name in state)), None)
        state = {
            f"encoder.{name.removeprefix(f'{key}.')}": value
            for name, value in state.items()
            if key is not None and name.startswith(f"{key}.")
        } or state
    report = fit(objective, state, str(source))
    if isinstance(objective, Objective):
        objective.started(report.fresh)
    if not any("positions" not in name for name in [*report.loaded, *report.resized]):
        foreign = (
            ""
            if Path(source).is_dir()
            else " A published checkpoint is made a run first: unveil import FILE --recipe NAME --out RUN."
        )
        raise UserError(
            f"--start {source}: none of its {len(state)} tensors fits this network (sizes or names differ). "
            f"It holds: {', '.join(list(state)[:4])} …; this network: {', '.join(list(own)[:4])} …{foreign}"
        )
    return report


def borrow(objective: nn.Module, borrowed: Borrowed) -> str:
    """Give a part of the objective the weights of another run's part; returns a sentence about it.

    Raises:
        UserError: there is no such run, or its part has other shapes.
    """
    path = Run(borrowed.run).path / "weights.safetensors"
    if not path.is_file():
        raise UserError(f"{borrowed.flag} {borrowed.run}: the run has no weights yet. Let it finish first.")
    beginning = f"{borrowed.theirs}."
    state = {name.removeprefix(beginning): x for name, x in read_state_dict(path).items() if name.startswith(beginning)}
    try:
        objective.get_submodule(borrowed.part).load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{borrowed.flag} {borrowed.run}: its weights do not fit here: {error}") from error
    return f"{borrowed.part} is that of {borrowed.run}: {len(state)} tensors"
