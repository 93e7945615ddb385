"""What a run says of itself before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unveil.data import TrainingOrder
from unveil.data.visual import SeveralKinds
from unveil.training import statistics

if TYPE_CHECKING:
    from unveil.recipe import Recipe


def sentences(
    recipe: Recipe, order: TrainingOrder, total: int, warmup: int, peak: float, micro: int, world: int, device: str
) -> list[str]:
    """How large the data, the batches and the rate are, and what depends on it.

    Args:
        recipe: of the run.
        order: of its rows.
        total, warmup: steps.
        peak: learning rate after the warm-up.
        micro: rows of a micro-batch.
        world: processes.
        device: their kind.
    """
    data, wanted = recipe.data, recipe.schedule.batch
    batch, samples = order.batch * data.repeats, micro * data.repeats
    found = []
    if order.batch < max(1, wanted // data.repeats):
        whose = "of the kind that has fewest" if len(order.steps_of_kind) > 1 else "there are"
        found.append(f"batch {batch} instead of {wanted}: that is all the data {whose}")
    found.append(
        f"{order.num_samples} files, {total} steps of {batch} ({samples} at a time on {world} × {device}), "
        f"learning rate {recipe.optimizer.lr:g} × {batch}/256 = {peak:.3g}, warm-up {warmup} steps"
    )
    if isinstance(data.signal, SeveralKinds) and len(order.steps_of_kind) > 1:
        told = ", ".join(f"{count} of {data.signal.kinds[kind]}s" for kind, count in order.steps_of_kind.items())
        found.append(f"each step sees files of one kind; steps of an epoch: {told}")
    if recipe.objective.contrasts:
        others = samples * world - 1
        found.append(
            f"each sample is told from the {others} others of its micro-batch, of all processes (--loader.batch)"
        )
    return found + statistics.told(recipe.objective, samples, world, recipe.sync_batch_norm)
