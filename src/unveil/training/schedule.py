"""Learning rates as a pure function of the step."""

from __future__ import annotations

import math

from unveil.recipe import Optimizer, Schedule


def learning_rate(step: int, total: int, warmup: int, peak: float, minimum: float) -> float:
    """The rate of step `step` (0-based): linear from 0 to `peak` over `warmup` steps, then half a cosine to `minimum`.

    As in MAE (2111.06377, A.1): the first step after the warm-up has the peak rate; the last step is one short of `minimum`.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return minimum + (peak - minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def scaled(rate: float, batch: int) -> float:
    """The linear scaling rule (1706.02677): a base rate is for 256 samples."""
    return rate * batch / 256


def plan_steps(schedule: Schedule, steps_per_epoch: int, max_steps: int | None) -> tuple[int, int]:
    """Total and warm-up steps.

    `max_steps` shortens the schedule as a whole: the warm-up shrinks with it and the cosine still reaches its end. A run
    cut in the middle of its warm-up would teach nothing about the recipe.
    """
    total = max(1, round(schedule.epochs * steps_per_epoch))
    warmup = round(schedule.warmup * steps_per_epoch)
    if max_steps is not None and max_steps < total:
        warmup = round(warmup * max_steps / total)
        total = max_steps
    return total, max(0, min(warmup, total - 1))


def rates(optimizer: Optimizer, schedule: Schedule, batch: int) -> tuple[float, float]:
    """Peak and final rate for an effective batch. Where the peak is below the final rate, the rate stays there."""
    return scaled(optimizer.lr, batch), scaled(min(schedule.min_lr, optimizer.lr), batch)
