"""`--start`: weights of another run, or of a file, into a new network; and what did not fit, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from unveil.errors import UserError
from unveil.run import Run
from unveil.state_dict import read_state_dict


@dataclass
class Loaded:
    """What `--start` did: names that were loaded, resized on the way, left as initialised, and not used."""

    source: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        def some(names: list[str]) -> str:
            tops = list(dict.fromkeys(name if len(names) < 7 else ".".join(name.split(".")[:2]) for name in names))
            return ", ".join(tops[:8]) + (" …" if len(tops) > 8 else "")

        lines = [f"started from {self.source}: {len(self.loaded)} tensors"]
        if self.resized:
            lines.append(f"resized to the new shape: {some(self.resized)}")
        if self.fresh:
            lines.append(f"new, as initialised: {some(self.fresh)}")
        if self.unused:
            lines.append(f"not used here: {some(self.unused)}")
        return lines


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


def start(objective: nn.Module, source: str | Path) -> Loaded:
    """Load every tensor whose name and shape fit; position tables are interpolated to the new grid by their module.

    Names are the objective's (`encoder.blocks.0…`); a file that holds an encoder alone is recognised.

    Raises:
        UserError: nothing fits.
    """
    state = read(source)
    own = objective.state_dict()
    if not any(name in own for name in state) and any(f"encoder.{name}" in own for name in state):
        state = {f"encoder.{name}": value for name, value in state.items()}
    report = Loaded(str(source))
    fitting = {}
    for name, value in state.items():
        if name not in own:
            report.unused.append(name)
        elif own[name].shape == value.shape:
            fitting[name] = value
            report.loaded.append(name)
        elif "positions" in name:
            fitting[name] = value
            report.resized.append(name)
        else:
            report.unused.append(name)
    weights = [name for name in report.loaded if "positions" not in name]
    if not weights:
        raise UserError(
            f"--start {source}: none of its {len(state)} tensors fits this network (sizes or names differ). "
            f"It holds: {', '.join(list(state)[:4])} …; this network: {', '.join(list(own)[:4])} …"
        )
    report.fresh = [name for name in own if name not in fitting]
    objective.load_state_dict(fitting, strict=False)
    return report
