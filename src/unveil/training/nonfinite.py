"""A step whose loss or gradient is not a finite number: what is kept of it, so that it can be seen again.

RUN/nan/ holds one such step, the last one:

state.safetensors    the objective's state before the step (by the first process), and buffers that are no part of it
rank-0.safetensors   micro-batches as the network saw them: those whose own loss was not finite, or all where every loss was
rank-0.json          the step, its learning rate and precision; of every micro-batch its loss, and the rows, paths and seeds

Every process writes its own part. Gradients are no part of it: they follow from the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.run import versions
from unveil.storage import replacing

if TYPE_CHECKING:
    from unveil.data import Manifest

FORMAT = 1
FOLDER = "nan"
BUFFER = "buffer:"  # in front of the names of buffers that are no part of the state, such as class weights


@dataclass
class Step:
    """A step of the optimiser that was not taken.

    Args:
        number: counted from 1, as in the log.
        total: steps of the run.
        batch: samples of the whole step, over all processes.
        loss: of the step.
        gradient_norm: of the step.
        rate: learning rate.
        losses: of this process's micro-batches.
        seeds: with which PyTorch's generators were seeded before each of them.
    """

    number: int
    total: int
    batch: int
    loss: float
    gradient_norm: float
    rate: float
    losses: Sequence[float]
    seeds: Sequence[int]

    @property
    def finite(self) -> bool:
        # A gradient that is not finite would make every weight NaN, and here is no loss scaler for which it is routine.
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclass
class Case:
    """A step that is not finite, as one process saw it.

    Args:
        step: its numbers.
        chunks: this process's micro-batches, `bad` among their keys or not.
        manifest: of the training data.
        objective: its buffers are read.
        state: of the objective, before the step; None in all processes but the first.
        precision: Lightning Fabric's name of it, e.g. "bf16-mixed".
        device: that computed.
        rank, world: this process, of how many.
    """

    step: Step
    chunks: Sequence[Mapping[str, Any]]
    manifest: Manifest
    objective: nn.Module
    state: Mapping[str, Tensor] | None
    precision: str
    device: torch.device
    rank: int = 0
    world: int = 1


def keep(run: Path, case: Case) -> UserError:
    """Write this process's part of a step that is not finite; return the error that ends the run.

    Nothing is raised here: what cannot be written (a full disk) is said in the error, and does not take its place.

    Args:
        run: the run folder.
        case: what happened.
    """
    step = case.step
    what = (
        f"the loss is {step.loss}" if not math.isfinite(step.loss) else f"the gradient's norm is {step.gradient_norm}"
    )
    folder = run / FOLDER
    try:
        _write(folder, case)
        kept = f"Its batch, seeds and weights are kept in {folder}: `unveil doctor {run}` replays it and says where it begins."
    except Exception as error:  # a full disk in any of its guises; the loss is the news
        kept = f"(Its batch and weights could not be kept in {folder}: {error})"
    return UserError(
        f"{what} at step {step.number}: training has stopped before it spoils the weights. {kept}\n"
        "What usually helps: a lower --optimizer.lr, a longer --schedule.warmup, --clip-gradient 1, --precision 32. "
        "Checkpoints from before are untouched."
    )


def _write(folder: Path, case: Case) -> None:
    from safetensors.torch import save_file

    step, chunks, rank = case.step, case.chunks, case.rank
    label = {"step": str(step.number), "world": str(case.world)}
    if case.state is not None:
        tensors = {**case.state, **{BUFFER + name: value for name, value in unsaved_buffers(case.objective).items()}}
        with replacing(folder / "state.safetensors") as temporary:
            save_file({name: _own(value) for name, value in tensors.items()}, temporary, label)
    guilty = [i for i, loss in enumerate(step.losses) if not math.isfinite(loss)]
    if not guilty and not math.isfinite(step.loss):
        kept: Sequence[int] = []  # another process's loss it was
    else:
        kept = guilty or range(len(chunks))
    with replacing(folder / f"rank-{rank}.safetensors") as temporary:
        save_file(
            {f"{i}.{key}": _own(x) for i in kept for key, x in chunks[i].items() if isinstance(x, Tensor)},
            temporary,
            label,
        )
    info = {
        "format": FORMAT,
        "step": step.number,
        "total_steps": step.total,
        "rank": rank,
        "world": case.world,
        "loss": str(step.loss),  # JSON has no NaN
        "gradient_norm": str(step.gradient_norm),
        "lr": step.rate,
        "batch": step.batch,
        "precision": case.precision,
        "device": str(case.device),
        "versions": versions(),
        "micro_batches": [
            {
                "loss": str(loss),
                "torch_seed": seed,
                "kept": i in kept,
                "samples": [
                    {"row": row, "path": case.manifest.row(row).path, "seed": sample}
                    for row, sample in zip(chunk["index"].tolist(), chunk["seed"].tolist(), strict=True)
                ],
            }
            for i, (chunk, loss, seed) in enumerate(zip(chunks, step.losses, step.seeds, strict=True))
        ],
    }
    # Last, and in one step: where it is, the other files are whole. Its text is ASCII, so that any file name fits in.
    with replacing(folder / f"rank-{rank}.json") as temporary:
        temporary.write_text(json.dumps(info, indent=1) + "\n", encoding="ascii")


def _own(x: Tensor) -> Tensor:
    """A copy on the CPU that shares no memory: safetensors refuses tensors that do."""
    return x.detach().cpu().contiguous().clone()


def unsaved_buffers(objective: nn.Module) -> dict[str, Tensor]:
    """The buffers that `state_dict` leaves out, by their full names."""
    saved = objective.state_dict(keep_vars=True)
    return {name: value for name, value in objective.named_buffers() if name not in saved}


def restore(objective: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put what `state.safetensors` holds into an objective.

    Raises:
        RuntimeError: it is the state of another network.
    """
    buffers = {name: value for name, value in tensors.items() if name.startswith(BUFFER)}
    objective.load_state_dict({name: value for name, value in tensors.items() if name not in buffers})
    for name, value in buffers.items():
        module, _, buffer = name.removeprefix(BUFFER).rpartition(".")
        setattr(objective.get_submodule(module), buffer, value)


@dataclass
class MicroBatch:
    """A micro-batch that was kept: on which process, of what number, and of which samples."""

    rank: int
    number: int
    batch: dict[str, Tensor]
    seed: int
    paths: list[str]


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor], list[MicroBatch]]:
    """What the processes kept (the first process first), the state, and the micro-batches.

    Raises:
        UserError: nothing was kept, or it cannot be read.
    """
    from safetensors import safe_open

    def tensors(path: Path) -> dict[str, Tensor]:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("step") != str(first["step"]):
                raise ValueError(f"{path} is of another step than rank-0.json")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)

    if not (folder / "rank-0.json").is_file():
        raise UserError(
            f"{folder.parent} has kept no step: its loss and gradients were always finite (or {folder} was deleted). "
            "Without a run, `unveil doctor` looks at this machine."
        )
    try:
        first = json.loads((folder / "rank-0.json").read_text(encoding="utf-8"))
        if first["format"] != FORMAT:
            raise UserError(f"{folder}/rank-0.json is of format {first['format']}; this unveil reads format {FORMAT}.")
        infos, batches = [], []
        for rank in range(first["world"]):
            path = folder / f"rank-{rank}.json"
            if not path.is_file():
                continue  # the process did not live to write it
            info = json.loads(path.read_text(encoding="utf-8"))
            if (info["step"], info["world"]) != (first["step"], first["world"]):
                continue
            infos.append(info)
            stored = tensors(path.with_suffix(".safetensors"))
            for number, micro in enumerate(info["micro_batches"]):
                start = f"{number}."
                batch = {name.removeprefix(start): x for name, x in stored.items() if name.startswith(start)}
                if batch:
                    paths = [sample["path"] for sample in micro["samples"]]
                    batches.append(MicroBatch(rank, number, batch, micro["torch_seed"], paths))
        return infos, tensors(folder / "state.safetensors"), batches
    except UserError:
        raise
    except Exception as error:  # safetensors, JSON and a foreign structure raise many kinds
        raise UserError(
            f"{folder} cannot be read ({error}). The run's command, given again, meets the same step and writes it anew."
        ) from error
