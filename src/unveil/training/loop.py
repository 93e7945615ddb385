"""The one training loop.

It knows devices, processes, precision and files; it knows no modality, no paper and no loss. A step is a pure function of
(weights, optimiser, seed, step): the batch, its crops and its masks come from the loader as functions of (seed, epoch,
index), what the network draws (drop path) from (seed, step). So a run that is stopped anywhere and started again
goes on bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unveil.data import Dataset, Manifest, TrainingOrder, sample_seed, training_batches
from unveil.errors import UserError
from unveil.flags import build
from unveil.recipe import Recipe
from unveil.run import choose_device, write_json
from unveil.training import checkpoint, nonfinite
from unveil.training.guards import BadFiles, Stop, out_of_memory
from unveil.training.log import Log, make_loggers
from unveil.training.monitor import Monitor
from unveil.training.optimizer import adamw, set_rate
from unveil.training.schedule import learning_rate, plan_steps, rates
from unveil.training.start import start

if TYPE_CHECKING:
    from lightning.fabric import Fabric

CHECKPOINT_SECONDS = 300


@dataclass
class Plan:
    """Everything a process needs to train: plain values only, so that it travels to other processes as it is.

    Args:
        out: the run folder; run.json, manifest.parquet and validation.parquet are there already.
        recipe, flags: rebuild the recipe.
        classes: class names; empty without labels.
        seed, max_steps, start, max_bad, loggers: as on the command line.
        device, devices: where, and how many processes.
        precision: "auto", "32" or "bf16".
        quiet: print nothing.
    """

    out: Path
    recipe: str
    flags: dict[str, Any]
    classes: list[str] = field(default_factory=list)
    seed: int = 0
    max_steps: int | None = None
    start: str | None = None
    max_bad: float = 0.1
    loggers: list[str] = field(default_factory=list)
    device: str = "auto"
    devices: int = 1
    precision: str = "auto"
    quiet: bool = False


def fit(plan: Plan) -> None:
    """Train, or go on training, until the plan's last step.

    Raises:
        UserError: out of memory, a loss that is not finite, too many bad files, a full disk.
    """
    from lightning.fabric import Fabric

    device = choose_device(plan.device)
    precision = {"auto": "bf16-mixed" if _has_bf16(device) else "32-true", "32": "32-true", "bf16": "bf16-mixed"}
    if plan.precision not in precision:
        raise UserError(f"--precision {plan.precision}: use auto, 32 or bf16.")
    fabric = Fabric(
        accelerator=device.type,
        devices=plan.devices,
        strategy="ddp_spawn" if plan.devices > 1 else "auto",
        precision=precision[plan.precision],  # type: ignore[arg-type]
    )
    with out_of_memory():
        if plan.devices > 1:
            fabric.launch(_train, plan)  # type: ignore[arg-type]
        else:
            _train(fabric, plan)


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _average(objective: nn.Module, decay: float) -> Any:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    return AveragedModel(objective, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def prepare(plan: Plan, manifest: Manifest, say: Any) -> Recipe:
    """Build the recipe with its first weights: a function of the seed, then of `--start`."""
    torch.manual_seed(plan.seed)
    recipe = build(plan.recipe, **plan.flags)
    if plan.start:
        for line in start(recipe.objective, plan.start).sentences():
            say(line)
    if recipe.class_weights:
        if not plan.classes:
            raise UserError("--class-weights: the data have no labels.")
        recipe.objective.weigh(inverse_frequency(manifest, plan.classes))  # type: ignore[operator]
    towers: Any = recipe.objective.towers
    for tower in towers.values():
        tower.checkpointing = recipe.checkpointing
        if recipe.compile:
            for block in tower.blocks:
                block.compile()
    return recipe


def inverse_frequency(manifest: Manifest, classes: list[str]) -> torch.Tensor:
    """Weights [classes] that make every class count the same in the loss; their mean over samples is 1."""
    count = torch.zeros(len(classes))
    for row in manifest:
        for label in row.label.split(";"):
            count[classes.index(label)] += 1
    return count.sum() / (len(classes) * count.clamp(min=1))


def _train(fabric: Fabric, plan: Plan) -> None:
    manifest = Manifest.load(plan.out / "manifest.parquet")
    validation = plan.out / "validation.parquet"
    held_out = Manifest.load(validation) if validation.is_file() else None
    notes: list[str] = []
    recipe = prepare(plan, manifest, notes.append)
    objective, data, loader = recipe.objective, recipe.data, recipe.loader
    dataset = Dataset(manifest, data, plan.classes or None, training=True, seed=plan.seed)
    # The order counts files; with repeated sampling each of them gives several samples of the batch.
    order = TrainingOrder(len(dataset), max(1, recipe.schedule.batch // data.repeats), plan.seed)
    batch = order.batch * data.repeats
    micro = max(1, min(loader.batch // data.repeats, math.ceil(order.batch / fabric.world_size)))
    total, warmup = plan_steps(recipe.schedule, order.steps_per_epoch, plan.max_steps)
    peak, minimum = rates(recipe.optimizer, recipe.schedule, batch)
    optimizer = adamw(objective, recipe.optimizer, fabric.device)
    average = _average(objective, recipe.ema) if recipe.ema else None
    resumed = checkpoint.latest(plan.out, notes.append)
    done = 0
    if resumed:
        objective.load_state_dict(resumed["objective"])
        optimizer.load_state_dict(resumed["optimizer"])
        if average is not None:
            average.load_state_dict(resumed["average"])
        done = resumed["step"]
        notes.append(f"resumed after step {done}")
    if average is not None:
        average.to(fabric.device)
    model, optimizer = fabric.setup(objective, optimizer)
    first = fabric.is_global_zero
    loggers = make_loggers(plan.loggers, plan.out) if first else []
    log = Log(plan.out, done, total, loggers, first, plan.quiet)
    say = log.say
    if order.batch < recipe.schedule.batch // data.repeats:
        notes.append(f"batch {batch} instead of {recipe.schedule.batch}: that is all the data there are")
    notes.append(
        f"{len(dataset)} files, {total} steps of {batch} ({micro * data.repeats} at a time on "
        f"{fabric.world_size} × {fabric.device.type}), "
        f"learning rate {recipe.optimizer.lr:g} × {batch}/256 = {peak:.3g}, warm-up {warmup} steps"
    )
    for note in notes:
        say(note)
    bad = BadFiles(plan.out, plan.max_bad)
    monitor = Monitor(recipe, manifest, held_out, plan.classes, total, batch, plan.seed)
    saved_at = time.monotonic()

    def save(step: int, status: str = "running") -> None:
        if fabric.is_global_zero:
            state = {"objective": objective.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            if average is not None:
                state["average"] = average.state_dict()
            checkpoint.save(plan.out, step, state)
            checkpoint.save_weights(plan.out, average.module if average is not None else objective)
            info = json.loads((plan.out / "run.json").read_text(encoding="utf-8"))
            write_json(plan.out / "run.json", {**info, "status": status, "steps": step, "total_steps": total})
        fabric.barrier()

    stop = Stop()
    world, rank = fabric.world_size, fabric.global_rank
    batches = training_batches(dataset, order, loader, start_step=done, micro=micro, rank=rank, world=world)
    try:
        with stop.listening():
            began = time.perf_counter()
            for step in range(done, total):
                chunks = next(batches)
                waited = time.perf_counter() - began
                rate = learning_rate(step, total, warmup, peak, minimum)
                set_rate(optimizer, rate)
                objective.train()
                objective.before_step(step / total)
                seeds = [sample_seed(plan.seed, step, rank, number) for number in range(len(chunks))]
                numbers, losses = _backward(fabric, model, chunks, data.signal.key, seeds, batch)
                norm = fabric.clip_gradients(
                    model, optimizer, max_norm=recipe.clip_gradient or math.inf, error_if_nonfinite=False
                )
                norm = float(norm) if norm is not None else 0.0
                taken = nonfinite.Step(step + 1, total, batch, numbers["loss"], norm, rate, losses, seeds)
                if not taken.finite:
                    # The loss and the norm are those of all processes, so that all of them come here.
                    state = objective.state_dict() if first else None
                    precision = fabric.strategy.precision.precision
                    error = nonfinite.keep(
                        plan.out, taken, chunks, manifest, objective, state, precision, fabric.device, rank, world
                    )
                    fabric.barrier()
                    raise error
                optimizer.step()
                optimizer.zero_grad()
                objective.after_step((step + 1) / total)
                if average is not None:
                    average.update_parameters(objective)
                bad.add([pair for chunk in chunks for pair in chunk.get("bad", [])], len(dataset), say)
                spent = time.perf_counter() - began
                numbers = {
                    "step": step + 1,
                    **numbers,
                    "epoch": round((step + 1) / order.steps_per_epoch, 4),
                    "lr": rate,
                    "gradient_norm": norm,
                    "samples_per_s": round(batch / spent, 3),
                    "data_wait": round(waited / spent, 4),
                    "bad": len(bad.known),
                }
                last = step + 1 == total
                if monitor.due(step + 1):
                    shown = average.module if average is not None else objective
                    numbers.update(monitor.measure(shown, fabric.device))
                began = time.perf_counter()
                log.step(numbers)
                asked = _any(fabric, stop.asked is not None)
                if last or asked or (time.monotonic() - saved_at > CHECKPOINT_SECONDS and world == 1):
                    save(step + 1, "complete" if last else "running")
                    saved_at = time.monotonic()
                if asked and not last:
                    say(f"stopped by {stop.asked} after step {step + 1}, saved; the same command goes on from here")
                    raise SystemExit(0)
            if done == total and resumed is None:  # --max-steps 0: the weights as initialised, e.g. to compare with
                save(total, "complete")
    finally:
        batches.close()
        log.close()


def _any(fabric: Fabric, flag: bool) -> bool:
    if fabric.world_size == 1:
        return flag
    total = fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum")
    return bool(total > 0)  # type: ignore[operator]


def _backward(
    fabric: Fabric, model: Any, chunks: list[dict[str, Any]], key: str, seeds: list[int], batch: int
) -> tuple[dict[str, float], list[float]]:
    """Gradients of the mean over the whole batch, whatever its division into micro-batches and processes.

    Each micro-batch's loss is weighted by its share of the *global* count; DDP averages over processes, so the share is
    multiplied by their number. Returns the batch's means, and the losses of this process's micro-batches.
    """
    totals: dict[str, torch.Tensor] = {}
    losses: list[torch.Tensor] = []
    for number, chunk in enumerate(chunks):
        chunk = {name: fabric.to_device(value) if name != "bad" else value for name, value in chunk.items()}
        share = len(chunk[key]) / batch
        torch.manual_seed(seeds[number])
        with fabric.no_backward_sync(model, enabled=number + 1 < len(chunks)):
            outputs = model(chunk)
            fabric.backward(outputs["loss"] * (share * fabric.world_size))
        losses.append(outputs["loss"].detach())
        for name, value in outputs.items():
            totals[name] = totals.get(name, torch.zeros((), device=fabric.device)) + value.detach().float() * share
    if fabric.world_size > 1:
        totals = {name: fabric.all_reduce(value, reduce_op="sum") for name, value in totals.items()}  # type: ignore[misc]
    return {name: float(value) for name, value in totals.items()}, [float(loss) for loss in losses]
