"""How often a trained classifier is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.evaluation.features import evaluating, views_of
from unveil.evaluation.report import Report, summarise


@torch.no_grad()
def accuracy(
    objective: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    classes: Sequence[str],
    device: torch.device | str,
) -> Report:
    """Top-1, top-5, per class, confusion matrix; mean average precision where a sample may have several labels.

    The probabilities of a sample's views (clips × crops) are averaged, as published for SlowFast, VideoMAE and others:
    after the softmax (or the sigmoid, with several labels), not before.

    Args:
        objective: `Supervised`: `.key`, `.logits(batch) -> [B,classes]`.
        batches: of the evaluation loader: `batch[key]` is [B,V,…].
        classes: names, in the order of the labels.
        device: where the objective is.

    Raises:
        UserError: not a classifier, no labels, no samples, or another number of classes.
    """
    key = classifier_key(objective)
    probabilities, labels, indices = [], [], []
    count = 0
    bad: list[tuple[str, str]] = []
    with evaluating(objective):
        for batch in batches:
            if "label" not in batch:
                raise UserError(
                    "the data have no labels to compare with: put the files into one folder per class, "
                    "or beside them a labels.csv with the columns path,label"
                )
            label, views = batch["label"], views_of(batch, key)
            probabilities.append(view_probabilities(objective, views, key, device, multi_label=label.ndim == 2))
            labels.append(label.cpu())
            indices.append(batch["index"].cpu() if "index" in batch else torch.arange(count, count + len(label)))
            count += len(label)
            bad += batch.get("bad", [])
    if not labels:
        raise UserError("no samples to evaluate: the data are empty")
    report = summarise("accuracy", torch.cat(probabilities), torch.cat(labels), torch.cat(indices), classes)
    report.bad = bad
    return report


def view_probabilities(
    objective: nn.Module, views: Tensor, key: str, device: torch.device | str, multi_label: bool = False
) -> Tensor:
    """Probabilities of the classes, the mean over views: [B,V,…] → float32 [B,classes] on the CPU."""
    total = torch.zeros(())
    for v in range(views.shape[1]):  # view by view: the memory of one batch, however many views
        logits = objective.logits({key: views[:, v].to(device, non_blocking=True)}).float()  # pyright: ignore[reportCallIssue]
        total = total + (logits.sigmoid() if multi_label else logits.softmax(1)).cpu()
    return total / views.shape[1]


def classifier_key(objective: nn.Module) -> str:
    """The signal's key of an objective that classifies; `UserError` for one that does not."""
    if not hasattr(objective, "logits"):
        raise UserError(
            "this run was trained without labels and has no classes to answer with: fine-tune it first "
            "(unveil finetune RUN --data LABELLED --out NEW), or evaluate --by knn, linear or attentive"
        )
    return objective.key  # pyright: ignore[reportReturnType]
