"""Linear probing: logistic regression on frozen features, fitted to convergence rather than by a tuned SGD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unveil.errors import UserError
from unveil.evaluation.knn import one_hot

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strongest first: each fit starts from the one before."""
HELD_OUT = 0.2

Layer = tuple[Tensor, Tensor]  # weight [classes,D], bias [classes]


def linear_probe(
    x: Tensor,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    steps: int = 200,
) -> tuple[Tensor, float]:
    """Probabilities of the queries' classes after logistic regression on x.

    Features are standardised with the mean and deviation of x. The loss is the mean cross-entropy (binary, summed over
    classes, with several labels) + penalty / 2 · ‖weights‖², minimised by L-BFGS. The penalty is the one of `penalties` with
    the lowest cross-entropy on a fifth of x held out of every class (a class of one sample stays in); then everything is
    fitted again with it. The queries choose nothing.

    Args:
        x: [n,D], training features.
        labels: int64 [n], or multi-hot [n,classes].
        queries: [m,D].
        classes: their number.
        penalties: to choose from, strongest first.
        seed: of the split.
        steps: iterations of L-BFGS at most, for each fit.

    Returns:
        The probabilities, float32 [m,classes], and the penalty chosen.

    Raises:
        UserError: features that are not finite.
    """
    if not (torch.isfinite(x).all() and torch.isfinite(queries).all()):
        raise UserError("the features hold infinities or NaN: has the run diverged? See its log.jsonl")
    mean, deviation = x.mean(0), x.std(0, correction=0)
    # A feature that never changes says nothing; dividing by its rounding error would make it shout.
    scale = torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation, 0.0)
    x, queries = (x - mean) * scale, (queries - mean) * scale
    multi_label, target = labels.ndim == 2, one_hot(labels, classes).to(x.device)
    penalties = sorted(penalties, reverse=True)
    penalty = penalties[0]
    if len(penalties) > 1:
        fit, held = split(labels, seed)
        best, layer = float("inf"), None
        for candidate in penalties if len(held) else ():
            layer = _fit(x[fit], target[fit], candidate, multi_label, steps, layer)
            loss = float(cross_entropy(F.linear(x[held], *layer), target[held], multi_label))
            if loss < best:
                best, penalty = loss, candidate
        if not len(held):
            penalty = penalties[len(penalties) // 2]
    layer = _fit(x, target, penalty, multi_label, steps)
    logits = F.linear(queries, *layer)
    return logits.sigmoid() if multi_label else logits.softmax(1), penalty


def split(labels: Tensor, seed: int, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows held out: the same share of every class, at least one row of a class stays in.

    Args:
        labels: int64 [n], or multi-hot [n,classes] (then split without regard to classes).
        seed: of the order.
        share: held out.

    Returns:
        Two int64 tensors of rows, ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    group = torch.zeros(len(labels), dtype=torch.int64) if labels.ndim == 2 else labels
    held = []
    for value in group.unique():
        rows = (group == value).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    out = torch.cat(held).sort().values
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[out] = False
    return keep.nonzero().flatten(), out


def cross_entropy(logits: Tensor, target: Tensor, multi_label: bool) -> Tensor:
    """The mean over samples, for targets [n,classes]; binary, summed over classes, with several labels."""
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
    return F.cross_entropy(logits, target)


def _fit(x: Tensor, target: Tensor, penalty: float, multi_label: bool, steps: int, start: Layer | None = None) -> Layer:
    if start is None:
        start = x.new_zeros(target.shape[1], x.shape[1]), x.new_zeros(target.shape[1])
    weight, bias = (parameter.clone().requires_grad_() for parameter in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, tolerance_grad=1e-5, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(F.linear(x, weight, bias), target, multi_label) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()
