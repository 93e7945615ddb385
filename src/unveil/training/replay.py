"""A step that was not finite, again: from what RUN/nan/ holds to the module in which it begins, the files, and what to do."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.flags import build
from unveil.layers import seed_dropout
from unveil.run import Run, versions
from unveil.training.nonfinite import FOLDER, FORMAT, restore

HUGE = 1e4
"""Weights of a healthy network are far below; one above is worth a word."""
LISTED = 8


@dataclass
class Origin:
    """Where values first are not finite.

    Attributes:
        module: its name; "" for the objective itself.
        kind: its class.
        where: a sentence.
        values: what it was given, what it gave, and its parameters, one line each.
    """

    module: str
    kind: str
    where: str
    values: list[str]


@dataclass
class Replay:
    """What came of replaying a step.

    Attributes:
        step: counted from 1, as in the log.
        recorded: what was not finite in the run, in words.
        device: on which it was replayed.
        repeated: whether it was not finite again.
        losses: of the replayed micro-batches, as text.
        weights: parameters that were not finite before the step, with counts.
        huge: parameters with values above `HUGE`.
        inputs: samples that are not finite themselves, with their files.
        origin: None where the forward pass is finite.
        backward: what the backward pass gave where the forward pass was finite.
        files: those whose sample alone gives a loss that is not finite.
        float32: whether the loss is finite without half precision; None where the run used none.
        advice: what to do, the likeliest remedy first.
        notes: what differs between the run and the replay.
    """

    step: int
    recorded: str
    device: str
    repeated: bool = False
    losses: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    huge: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    origin: Origin | None = None
    backward: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    float32: bool | None = None
    advice: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _MicroBatch:
    """A micro-batch that was kept: on which process, of what number, and of which samples."""

    rank: int
    number: int
    batch: dict[str, Tensor]
    seed: int
    paths: list[str]


def replay(run: Run) -> Replay:
    """Run the step that RUN/nan/ holds again: forward, and backward where that is finite.

    Raises:
        UserError: nothing was kept, or it cannot be read, or the recipe is no longer what it was.
    """
    infos, state, batches = _read(run.path / FOLDER)
    info = infos[0]
    with torch.random.fork_rng():
        objective = _objective(run, info, state)
        found = Replay(info["step"], _recorded(infos), str(run.device), notes=_differences(run, info))
        _look_at_weights(objective, found)
        for micro in batches:
            found.inputs += _not_finite_samples(micro)
        half = info["precision"].startswith("bf16")
        for micro in batches:
            with _watch(objective) as watch, _precision(run.device, half):
                loss = _loss(objective, micro)
            found.losses.append(f"micro-batch {micro.number} of process {micro.rank}: {loss.item():.6g}")
            if watch.origin is not None or not loss.isfinite():
                found.repeated = True
                found.origin = found.origin or watch.origin or watch.afterwards(objective)
                found.files += _alone(objective, micro, half)
        if half:
            with torch.no_grad():
                found.float32 = all(bool(_loss(objective, micro).isfinite()) for micro in batches)
        if not found.repeated:
            _backward(objective, batches, info["batch"], half, found)
    found.advice = _advise(found, run)
    return found


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor], list[_MicroBatch]]:
    """What the processes kept (the first process first), the state, and the micro-batches."""
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
                    batches.append(_MicroBatch(rank, number, batch, micro["torch_seed"], paths))
        return infos, tensors(folder / "state.safetensors"), batches
    except UserError:
        raise
    except Exception as error:  # safetensors, JSON and a foreign structure raise many kinds
        raise UserError(
            f"{folder} cannot be read ({error}). The run's command, given again, meets the same step and writes it anew."
        ) from error


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


def _recorded(infos: list[dict[str, Any]]) -> str:
    loss, norm = infos[0]["loss"], infos[0]["gradient_norm"]
    text = f"the loss was {loss}, the gradient's norm {norm}"
    if infos[0]["world"] > 1:
        guilty = [
            str(info["rank"])
            for info in infos
            if any(not math.isfinite(float(m["loss"])) for m in info["micro_batches"])
        ]
        text += (
            f", in process {', '.join(guilty)}" if guilty and len(guilty) < infos[0]["world"] else ", in all processes"
        )
    return text


def _differences(run: Run, info: Mapping[str, Any]) -> list[str]:
    notes = []
    recorded = torch.device(info["device"]).type
    if recorded != run.device.type:
        notes.append(f"the run was on {recorded}, this replay is on {run.device.type}: rounding and dropout differ")
    here = versions()
    other = [f"{name} {old} → {here[name]}" for name, old in info["versions"].items() if here.get(name, old) != old]
    if other:
        notes.append("versions have changed: " + ", ".join(other))
    steps = [line["step"] for line in run.log()]
    if steps and steps[-1] >= info["step"]:
        notes.append(f"the run has since gone on to step {steps[-1]}")
    return notes


# ---- looking at values


def _counts(x: Tensor) -> str:
    """ "3 NaN, 1 inf of 512"; "" where all are finite."""
    x = x.detach()
    if not (x.is_floating_point() or x.is_complex()) or bool(x.isfinite().all()):
        return ""
    nan = int(x.isnan().sum())
    infinite = int(x.isinf().sum())
    parts = [f"{count} {name}" for count, name in ((nan, "NaN"), (infinite, "inf")) if count]
    return f"{', '.join(parts)} of {x.numel()}"


def summary(x: Tensor) -> str:
    """Type, shape, range of the finite values, and how many are not: "float32 [4, 16, 32], -2.1 … 3.4, 12 NaN of 2048"."""
    text = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    x = x.detach()
    if not x.is_floating_point() or not x.numel():
        return text
    finite = x[x.isfinite()]
    if finite.numel():
        text += f", {float(finite.min()):.4g} … {float(finite.max()):.4g}"
    counts = _counts(x)
    return f"{text}, {counts}" if counts else text


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments and results: in tuples (also named ones), lists, mappings and dataclasses' `__dict__`."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors_in(vars(value))


def _look_at_weights(objective: nn.Module, found: Replay) -> None:
    for name, parameter in objective.named_parameters():
        if counts := _counts(parameter):
            found.weights.append(f"{name}: {counts}")
        elif parameter.numel() and float(parameter.detach().abs().max()) > HUGE:
            found.huge.append(f"{name}: {summary(parameter)}")


def _not_finite_samples(micro: _MicroBatch) -> list[str]:
    lines = []
    for key, x in micro.batch.items():
        for i in range(len(x)):
            if counts := _counts(x[i]):
                lines.append(f"{key} of {micro.paths[i] if i < len(micro.paths) else f'sample {i}'}: {counts}")
    return lines


class _Watch:
    """Hooks on every module that note where NaN or infinity first appears.

    Modules finish from the inside outwards, so the first whose result is not finite is the innermost one. A module that is
    *given* such values has not made them: then the code of the module around it did, since its last child.
    -inf is noted apart: attention masks and biases hold it rightly.
    """

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.minus: Origin | None = None
        self.gradient: str | None = None
        self.stack: list[tuple[str, nn.Module]] = []
        self.last = ""
        self.sound = ""

    def before(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.origin is None:
            given = list(tensors_in((args, kwargs)))
            if self.stack:
                around, outer = self.stack[-1]
                since = f"after `{self.last}`" if self.last else "at its beginning"
                where = f"in the forward of {_called(around, outer)} {since}, before `{name}`"
                self._note(around, outer, where, given, [])
            else:
                self._note(name, module, "in the batch itself, before the network", given, [])
        self.stack.append((name, module))

    def after(self, name: str, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self.stack.pop()
        given, got = list(tensors_in((args, kwargs))), list(tensors_in(result))
        if self.origin is None:
            inside = any(child for child in module.children()) and self.last.startswith(f"{name}." if name else "")
            since = f", after `{self.last}`" if inside else ""
            self._note(name, module, f"in the forward of {_called(name, module)}{since}", given, got)
        self.last = name
        for x in got:
            if x.requires_grad:
                x.register_hook(lambda gradient, name=name, module=module: self._gradient(gradient, name, module))

    def _note(self, name: str, module: nn.Module, where: str, given: list[Tensor], got: list[Tensor]) -> None:
        looked_at = [x for x in (got or given) if x.is_floating_point() and not bool(x.isfinite().all())]
        if not looked_at:
            return
        only_minus = all(bool((x.isfinite() | (x == -math.inf)).all()) for x in looked_at)
        if only_minus and self.minus is not None:
            return
        values = [f"given: {summary(x)}" for x in given if x.is_floating_point()]
        values += [f"gave: {summary(x)}" for x in got if x.is_floating_point()]
        values += [f"{part}: {summary(p)}" for part, p in module.named_parameters(recurse=False)]
        origin = Origin(name, type(module).__name__, where, values[: 2 * LISTED])
        if only_minus:
            self.minus = origin
        else:
            self.origin = origin

    def _gradient(self, gradient: Tensor, name: str, module: nn.Module) -> None:
        if self.gradient is not None:
            return
        at = f"the result of {_called(name, module)}"
        if bool(gradient.isfinite().all()):
            self.sound = f"the gradient of {at} is finite; next on the way back, "
        else:
            self.gradient = f"{self.sound}the gradient of {at} is not finite: {summary(gradient)}"

    def afterwards(self, objective: nn.Module) -> Origin:
        """For a loss that is not finite though no module's result was NaN or +inf."""
        return self.minus or Origin("", type(objective).__name__, "in the objective's result", [])


def _called(name: str, module: nn.Module) -> str:
    return f"`{name}` ({type(module).__name__})" if name else f"the objective ({type(module).__name__})"


@contextmanager
def _watch(objective: nn.Module) -> Iterator[_Watch]:
    watch = _Watch()
    with ExitStack() as stack:
        for name, module in objective.named_modules():
            for handle in (
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: watch.before(name, module, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(
                    lambda module, args, kwargs, result, name=name: watch.after(name, module, args, kwargs, result),
                    with_kwargs=True,
                ),
            ):
                stack.callback(handle.remove)
        yield watch


# ---- running it


def _precision(device: torch.device, half: bool) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext()


def _loss(objective: nn.Module, micro: _MicroBatch, which: slice = slice(None)) -> Tensor:
    device = next(objective.parameters()).device
    seed_dropout(objective, micro.batch["seed"][which].to(device))
    torch.manual_seed(micro.seed)
    return objective({key: x[which].to(device) for key, x in micro.batch.items()})["loss"]


def _alone(objective: nn.Module, micro: _MicroBatch, half: bool) -> list[str]:
    """Files whose sample alone gives a loss that is not finite; none where all do, or where a batch of one cannot be run."""
    device = next(objective.parameters()).device
    guilty = []
    for i, path in enumerate(micro.paths):
        try:
            with torch.no_grad(), _precision(device, half):
                finite = bool(_loss(objective, micro, slice(i, i + 1)).isfinite())
        except (RuntimeError, ValueError):  # statistics over a batch of one
            return []
        if not finite:
            guilty.append(path)
    return guilty if len(guilty) < len(micro.paths) else []


def _backward(objective: nn.Module, batches: list[_MicroBatch], total: int, half: bool, found: Replay) -> None:
    """The forward pass was finite; look at the gradients, micro-batch by micro-batch and then at their sum."""
    device = next(objective.parameters()).device

    def gradients(micro: _MicroBatch) -> _Watch:
        with _watch(objective) as watch:
            with _precision(device, half):
                loss = _loss(objective, micro)
            (loss * (len(micro.paths) / total)).backward()
        return watch

    objective.zero_grad()
    for micro in batches:
        watch = gradients(micro)
        wrong = [f"{name}: {_counts(p.grad)}" for name, p in _graded(objective) if _counts(p.grad)]
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


def _anomaly(objective: nn.Module, gradients: Any, micro: _MicroBatch) -> str | None:
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


def _advise(found: Replay, run: Run) -> list[str]:
    """Remedies, the likeliest first."""
    slower = "Lower --optimizer.lr, lengthen --schedule.warmup, or add --clip-gradient 1; in a new --out."
    advice = []
    if found.weights:
        first = [f"Weights were not finite before this step ({found.weights[0]}): the fault lies before it."]
        if run.info.get("asked", {}).get("start"):
            first.append(f"Check what the run started from: {run.info['asked']['start']}.")
        first.append(
            "Begin again from sound weights, or delete the newest file in checkpoints/ to resume from the one before."
        )
        return first
    if found.inputs:
        advice.append(
            "What the network was given is not finite: look at these files, at --sample.std (a zero divides), and at "
            "transforms of your own."
        )
    if found.float32:
        advice.append("In float32 the same step is finite: use --precision 32, or a lower --optimizer.lr.")
    if found.files:
        advice.append("Only these files give it: look at them, and leave them out if they are broken.")
    if found.huge:
        advice.append(f"Weights have grown very large ({found.huge[0]}): training had been diverging. {slower}")
    elif not found.inputs and not found.float32:
        rising = _rising(run)
        advice.append(f"{rising} {slower}" if rising else slower)
    if not found.repeated:
        advice.insert(
            0,
            "The replay is finite. If the run was on another device or version, replay it there (--device); otherwise "
            "suspect the hardware: run the same command again, it resumes from the last checkpoint.",
        )
    return advice


def _rising(run: Run) -> str:
    """A sentence where the log shows gradients or losses that grew before the step."""
    log = run.log()
    for key, name in (("gradient_norm", "The gradient's norm"), ("loss", "The loss")):
        values = [line[key] for line in log if isinstance(line.get(key), int | float) and math.isfinite(line[key])]
        if len(values) >= 20:
            usual, last = sorted(values)[len(values) // 2], max(values[-3:])
            if usual > 0 and last > 5 * usual:
                return f"{name} had risen to {last:.3g} (usually {usual:.3g}) before it: training was diverging."
    return ""
