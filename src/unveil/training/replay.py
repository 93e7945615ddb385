"""A step that was not finite, again: from what RUN/nan/ holds to the module in which it begins, and the files."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.flags import build
from unveil.layers import seed_dropout
from unveil.precision import lowered
from unveil.run import Run
from unveil.training.diagnosis import HUGE, Replay, advise, differences, recorded
from unveil.training.nonfinite import FOLDER, MicroBatch, read, restore
from unveil.training.watch import LISTED, Watch, counts_in, summary, watch_modules


def replay(run: Run) -> Replay:
    """Run the step that RUN/nan/ holds again: forward, and backward where that is finite.

    Raises:
        UserError: nothing was kept, or it cannot be read, or the recipe is no longer what it was.
    """
    infos, state, batches = read(run.path / FOLDER)
    info = infos[0]
    with torch.random.fork_rng():
        objective = _objective(run, info, state)
        found = Replay(info["step"], recorded(infos), str(run.device), notes=differences(run, info))
        _look_at_weights(objective, found)
        for micro in batches:
            found.inputs += _not_finite_samples(micro)
        precision = "bf16" if info["precision"].startswith("bf16") else "32"
        for micro in batches:
            with watch_modules(objective) as watch, lowered(run.device, precision):
                loss = _loss(objective, micro)
            found.losses.append(f"micro-batch {micro.number} of process {micro.rank}: {loss.item():.6g}")
            if watch.origin is not None or not loss.isfinite():
                found.repeated = True
                found.origin = found.origin or watch.origin or watch.afterwards(objective)
                found.files += _alone(objective, micro, precision)
        if precision == "bf16":
            with torch.no_grad():
                found.float32 = all(bool(_loss(objective, micro).isfinite()) for micro in batches)
        if not found.repeated:
            _backward(objective, batches, info["batch"], precision, found)
    found.advice = advise(found, run)
    return found


def _objective(run: Run, info: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    recipe = build(run.info["recipe"], **run.info["flags"])
    objective = recipe.objective
    # Before the state: what this changes in tensors had happened when the state was kept.
    objective.before_step((info["step"] - 1) / info["total_steps"])
    try:
        restore(objective, state)
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"{run.path / FOLDER / 'state.safetensors'} does not fit the recipe {run.info['recipe']} as it is now: {error}"
        ) from error
    return objective.to(run.device).train()


def _look_at_weights(objective: nn.Module, found: Replay) -> None:
    for name, parameter in objective.named_parameters():
        if counts := counts_in(parameter):
            found.weights.append(f"{name}: {counts}")
        elif parameter.numel() and float(parameter.detach().abs().max()) > HUGE:
            found.huge.append(f"{name}: {summary(parameter)}")


def _not_finite_samples(micro: MicroBatch) -> list[str]:
    lines = []
    for key, x in micro.batch.items():
        for i in range(len(x)):
            if counts := counts_in(x[i]):
                lines.append(f"{key} of {micro.paths[i] if i < len(micro.paths) else f'sample {i}'}: {counts}")
    return lines


def _loss(objective: nn.Module, micro: MicroBatch, which: slice = slice(None)) -> Tensor:
    device = next(objective.parameters()).device
    seed_dropout(objective, micro.batch["seed"][which].to(device))
    torch.manual_seed(micro.seed)
    return objective({key: x[which].to(device) for key, x in micro.batch.items()})["loss"]


def _alone(objective: nn.Module, micro: MicroBatch, precision: str) -> list[str]:
    """Files whose sample alone gives a loss that is not finite; none where all do, or where a batch of one cannot be run."""
    device = next(objective.parameters()).device
    guilty = []
    for i, path in enumerate(micro.paths):
        try:
            with torch.no_grad(), lowered(device, precision):
                finite = bool(_loss(objective, micro, slice(i, i + 1)).isfinite())
        except (RuntimeError, ValueError):  # statistics over a batch of one
            return []
        if not finite:
            guilty.append(path)
    return guilty if len(guilty) < len(micro.paths) else []


def _backward(objective: nn.Module, batches: list[MicroBatch], total: int, precision: str, found: Replay) -> None:
    """The forward pass was finite; look at the gradients, micro-batch by micro-batch and then at their sum."""
    device = next(objective.parameters()).device

    def gradients(micro: MicroBatch) -> Watch:
        with watch_modules(objective) as watch:
            with lowered(device, precision):
                loss = _loss(objective, micro)
            (loss * (len(micro.paths) / total)).backward()
        return watch

    objective.zero_grad()
    for micro in batches:
        watch = gradients(micro)
        wrong = [f"{name}: {counts_in(p.grad)}" for name, p in _graded(objective) if counts_in(p.grad)]
        if wrong:
            found.repeated = True
            found.backward += [watch.gradient] if watch.gradient else []
            found.backward += [f"gradient of {line}" for line in wrong[:LISTED]]
            if len(wrong) > LISTED:
                found.backward.append(f"and of {len(wrong) - LISTED} more")
            if (function := _anomaly(objective, gradients, micro)) is not None:
                found.backward.append(f"PyTorch's anomaly detection names {function}")
            return
    graded = _graded(objective)
    if not graded:
        return
    largest, parameter = max(graded, key=lambda item: float(item[1].grad.abs().max()))
    summed = summary(parameter.grad)  # before the norm is taken, which scales the gradients by it
    norm = float(torch.nn.utils.clip_grad_norm_([p for _, p in graded], math.inf))
    if not math.isfinite(norm):
        found.repeated = True
        found.backward.append(f"every gradient is finite, but their norm is {norm}; the largest is {largest}: {summed}")


def _graded(objective: nn.Module) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in objective.named_parameters() if p.grad is not None]


def _anomaly(objective: nn.Module, gradients: Any, micro: MicroBatch) -> str | None:
    """The backward function that PyTorch finds to give NaN, e.g. "SqrtBackward0"; it looks for NaN alone."""
    objective.zero_grad()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is slow, and where in the forward pass the function was
            with torch.autograd.detect_anomaly():
                gradients(micro)
    except RuntimeError as error:
        if match := re.search(r"Function '(\w+)' returned nan", str(error)):
            return match[1]
    return None
