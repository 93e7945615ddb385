"""The one training loop.

It knows devices, processes, precision and files; it knows no modality, no paper and no loss. A step is a pure function of
(weights, optimiser, seed, step): the batch, its crops and its masks come from the loader as functions of (seed, epoch,
index), and what the network leaves out of a sample (drop path, dropout) from that sample's seed. So a run that is stopped
anywhere and started again goes on bit for bit, and any number of processes learns what one would.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unveil.data import Dataset, Manifest, TrainingOrder, normalised, sample_seed, training_batches
from unveil.data.workers import reporting_workers
from unveil.errors import UserError
from unveil.flags import build
from unveil.layers import channels_last, seed_dropout
from unveil.recipe import Data, Recipe
from unveil.run import WEIGHTS, choose_device, load
from unveil.storage import write_json
from unveil.training import checkpoint, nonfinite, opening, processes, statistics
from unveil.training import optimizer as optimizers
from unveil.training.averaging import averaged
from unveil.training.guards import BadFiles, Stop, out_of_memory, writing
from unveil.training.log import Log, make_loggers
from unveil.training.monitor import Monitor
from unveil.training.schedule import learning_rate, plan_steps, rates
from unveil.training.start import borrow, start
from unveil.training.weighting import inverse_frequency

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Plan:
    """Everything a process needs to train: plain values only, so that it travels to other processes as it is.

    Args:
        out: the run folder; run.json, manifest.parquet and validation.parquet are there already.
        recipe, flags: rebuild the recipe.
        classes: class names; empty without labels.
        seed, max_steps, start, max_bad, loggers: as on the command line.
        device, devices: where, and how many processes.
        strategy: "ddp" or "fsdp".
        checkpoint_every: seconds between checkpoints; 0 for one after every step.
        keep: how many of them.
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
    strategy: str = "ddp"
    precision: str = "auto"
    checkpoint_every: float = 300.0
    keep: int = 2
    quiet: bool = False


def fit(plan: Plan) -> None:
    """Train, or go on training, until the plan's last step.

    Raises:
        UserError: out of memory, a loss that is not finite, too many bad files, a full disk, a process that died.
    """
    if plan.devices > 1 and not processes.launched():
        processes.start(_train, plan, plan.devices)
    else:
        _train(plan)


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def prepare(plan: Plan, manifest: Manifest, say: Any) -> Recipe:
    """Build the recipe with its first weights: a function of the seed, then of `--start`."""
    torch.manual_seed(plan.seed)
    recipe = build(plan.recipe, **plan.flags)
    if recipe.data.text is not None:
        recipe.data.text.load(plan.out)
    if plan.start:
        for line in start(recipe.objective, plan.start).sentences():
            say(line)
    if recipe.class_weights:
        if not plan.classes:
            raise UserError("--class-weights: the data have no labels.")
        recipe.objective.weigh(inverse_frequency(manifest, plan.classes))  # type: ignore[operator]
    if plan.strategy != "fsdp":  # which divides contiguous parameters only
        channels_last(recipe.objective, (2,))  # a tenth faster: docs/performance.md
    parts: list[Any] = [part for part in recipe.objective.modules() if hasattr(part, "checkpointing")]
    for part in parts:  # decoders, too: they hold more tokens than the encoder
        part.checkpointing = recipe.checkpointing
    towers: Any = recipe.objective.towers
    for tower in towers.values():
        if recipe.compile:
            for block in tower.blocks:
                block.compile()
    return recipe


def _train(plan: Plan) -> None:
    device = choose_device(plan.device)
    precision = {"auto": "bf16-mixed" if _has_bf16(device) else "32-true", "32": "32-true", "bf16": "bf16-mixed"}
    if plan.precision not in precision:
        raise UserError(f"--precision {plan.precision}: use auto, 32 or bf16.")
    stop = Stop()
    with out_of_memory(), writing(plan.out), reporting_workers(), stop.listening():
        # Long lists are read while libraries are; ended before workers are forked.
        with ThreadPoolExecutor(1) as beside:
            rows = beside.submit(_rows, plan.out)
            fabric = processes.fabric(device, precision[plan.precision], plan.strategy)
            fabric.launch()
        _steps(fabric, plan, stop, *rows.result())


def _rows(out: Path) -> tuple[Manifest, Manifest | None]:
    """What is trained on, and what is held out."""
    validation = out / "validation.parquet"
    return Manifest.load(out / "manifest.parquet"), Manifest.load(validation) if validation.is_file() else None


def _steps(fabric: Fabric, plan: Plan, stop: Stop, manifest: Manifest, held_out: Manifest | None) -> None:
    first, world, rank = fabric.is_global_zero, fabric.world_size, fabric.global_rank
    if first:
        checkpoint.clean(plan.out)
    notes: list[str] = []
    recipe = prepare(plan, manifest, notes.append)
    objective, data, loader = recipe.objective, recipe.data, recipe.loader
    dataset = Dataset(manifest, data, plan.classes or None, training=True, seed=plan.seed)
    # The order counts files; with repeated sampling each of them gives several samples of the batch.
    rows = max(1, recipe.schedule.batch // data.repeats)
    order = TrainingOrder(len(dataset), rows, plan.seed, dataset.kinds, dataset.weights)
    batch = order.batch * data.repeats
    micro = max(1, min(loader.batch // data.repeats, math.ceil(order.batch / world)))
    total, warmup = plan_steps(recipe.schedule, order.steps_per_epoch, plan.max_steps)
    peak, minimum = rates(recipe.optimizer, recipe.schedule, batch)
    if recipe.sync_batch_norm:
        processes.synchronised(fabric, objective)
    average = averaged(objective, recipe.ema) if recipe.ema else None
    resumed = checkpoint.latest(plan.out, objective, notes.append)
    if resumed is None:  # a checkpoint holds them, and the other run may be gone since
        notes += [borrow(objective, borrowed) for borrowed in recipe.borrowed]
    # Divided networks replace their parameters: optimisers are made afterwards.
    model = fabric.setup_module(objective)
    if average is not None:
        average.module = processes.placed(fabric, average.module)
    plain = optimizers.make(objective, recipe.optimizer, fabric.device)
    optimizer: Any = fabric.setup_optimizers(plain)
    done = 0
    if resumed:
        done = checkpoint.restore(resumed, objective, plain, average)
        resumed = None  # as large as the network and its optimiser
        notes.append(f"resumed after step {done}")
    best = checkpoint.Best(plan.out, done)
    loggers = make_loggers(plan.loggers, plan.out) if first else []
    log = Log(plan.out, done, total, loggers, first, plan.quiet)
    say = log.say
    notes += opening.sentences(recipe, order, total, warmup, peak, micro, world, fabric.device.type)
    for note in notes:
        say(note)
    left_out = load(plan.out).info["files"]["bad"]  # known to be bad before the run began, and so not in the data set
    bad = BadFiles(plan.out, plan.max_bad, first)
    monitor = Monitor(recipe, manifest, held_out, plan.classes, total, batch, plan.seed)
    saved_at = time.monotonic()

    def settle(**values: Any) -> None:
        info = json.loads((plan.out / "run.json").read_text(encoding="utf-8"))
        write_json(plan.out / "run.json", {**info, **values})

    def save(step: int, status: str = "running") -> None:
        state = checkpoint.state_of(objective, plain, average, step)
        if first:
            log.flush()  # what is logged up to here is on the disk before the checkpoint that builds on it
            checkpoint.save(plan.out, state, plan.keep)
            checkpoint.save_weights(plan.out / WEIGHTS["last"], state.get("average", state["objective"]))
            settle(status=status, steps=step, total_steps=total)
        fabric.barrier()

    batches = training_batches(dataset, order, loader, start_step=done, micro=micro, rank=rank, world=world)
    try:
        began = time.perf_counter()
        for step in range(done, total):
            chunks = next(batches)
            waited = time.perf_counter() - began
            rate = learning_rate(step, total, warmup, peak, minimum)
            optimizers.set_rate(optimizer, rate, peak)
            objective.train()
            objective.before_step(step / total)
            seeds = [sample_seed(plan.seed, step, rank, number) for number in range(len(chunks))]
            moving = statistics.copies(objective)
            numbers, losses = _backward(fabric, model, chunks, seeds, batch, data)
            norm: Any = nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip_gradient or math.inf)
            norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
            taken = nonfinite.Step(step + 1, total, batch, numbers["loss"], norm, rate, losses, seeds)
            if not taken.finite:
                # The loss and the norm are those of all processes, so that all of them come here.
                statistics.put_back(objective, moving)
                weights = checkpoint.weights_of(objective)
                case = nonfinite.Case(
                    taken, [normalised(data, chunk) for chunk in chunks], manifest, objective, weights if first else None,
                    fabric.strategy.precision.precision, fabric.device, rank, world,
                )  # fmt: skip
                error = nonfinite.keep(plan.out, case)
                fabric.barrier()
                raise error
            optimizer.step()
            optimizer.zero_grad()
            objective.after_step((step + 1) / total)
            if average is not None:
                average.update_parameters(objective)
            unread = [pair for chunk in chunks for pair in chunk.get("bad", [])]
            last = step + 1 == total
            due = first and time.monotonic() - saved_at >= plan.checkpoint_every
            asked, due, some_unread = processes.any_of(fabric, stop.asked is not None, due, bool(unread))
            if some_unread:
                bad.add(processes.all_of(fabric, unread), len(dataset) + left_out, say, first)
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
            if monitor.due(step + 1):
                shown = average.module if average is not None else objective
                ahead = training_batches(dataset, order, loader, step + 1, micro, rank, world)
                statistics.renew(fabric, shown, data, ahead, min(recipe.precise_bn, order.steps_per_epoch))
                with processes.gathered(shown):
                    numbers.update(monitor.measure(shown, fabric.device))
                if fabric.broadcast(best.better(numbers)):
                    weights = checkpoint.weights_of(shown)
                    if first:
                        checkpoint.save_weights(plan.out / WEIGHTS["best"], weights)
                        settle(best={"step": best.step, "score": best.value})
            began = time.perf_counter()
            log.step(numbers)
            if last or asked or due:
                save(step + 1, "complete" if last else "running")
                saved_at = time.monotonic()
            if asked and not last:
                say(
                    f"stopped by {stop.asked or 'a signal'} after step {step + 1}, saved; the same command goes on from here"
                )
                raise SystemExit(0)
        if done == total:
            # --max-steps 0: the weights as initialised, to compare with. Or a run that was killed after its last checkpoint,
            # before its weights and run.json were written.
            save(total, "complete")
    finally:
        batches.close()
        log.close()


def _backward(
    fabric: Fabric, model: Any, chunks: list[dict[str, Any]], seeds: list[int], batch: int, data: Data
) -> tuple[dict[str, float], list[float]]:
    """Gradients of the mean over the whole batch, whatever its division into micro-batches and processes.

    Each micro-batch's loss is weighted by its share of the *global* count; gradients are averaged over processes, so the
    share is multiplied by their number. Returns the batch's means, and the loss of each of this process's micro-batches.
    """
    totals: dict[str, torch.Tensor] = {}
    losses: list[torch.Tensor] = []
    for number, chunk in enumerate(chunks):
        chunk = processes.on_device(fabric, data, chunk)
        share = len(chunk["seed"]) / batch
        seed_dropout(model, chunk["seed"])
        torch.manual_seed(seeds[number])
        with fabric.no_backward_sync(model, enabled=number + 1 < len(chunks)):
            outputs = model(chunk)
            fabric.backward(outputs["loss"] * (share * fabric.world_size))
        losses.append(outputs["loss"].detach())
        for name, value in outputs.items():
            if name != "state":
                totals[name] = totals.get(name, 0.0) + value.detach().float() * share
    names = sorted(totals)
    means = torch.stack([totals[name] for name in names])
    if fabric.world_size > 1:
        means = fabric.all_reduce(means, reduce_op="sum")
    return dict(zip(names, means.tolist(), strict=True)), torch.stack(losses).tolist()  # type: ignore[union-attr]
