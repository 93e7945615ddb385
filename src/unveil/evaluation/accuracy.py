"""How often a trained classifier is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unveil.encoders import streams_of
from unveil.errors import UserError
from unveil.evaluation.features import evaluating, looks
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
        batches: of the evaluation loader: its streams are [B,V,…].
        classes: names, in the order of the labels.
        device: where the objective is.

    Raises:
        UserError: not a classifier, no labels, no samples, or another number of classes.
    """
    streams = classifier_streams(objective)
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
            label = batch["label"]
            probabilities.append(
                view_probabilities(objective, looks(batch, streams, device), multi_label=label.ndim == 2)
            )
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
    objective: nn.Module, views: Iterable[Mapping[str, Tensor]], multi_label: bool = False
) -> Tensor:
    """Probabilities of the classes, the mean over views (see `looks`): float32 [B,classes] on the CPU."""
    found = []
    for look in views:
        logits = objective.logits(look).float()  # pyright: ignore[reportCallIssue]
        found.append((logits.sigmoid() if multi_label else logits.softmax(1)).cpu())
    return torch.stack(found).mean(0)


def classifier_streams(objective: nn.Module) -> tuple[str, ...]:
    """The keys of the streams that a classifier looks at; `UserError` as of `classifier_key`."""
    key = classifier_key(objective)
    return streams_of(getattr(objective, "encoder", objective), key)


def classifier_key(objective: nn.Module) -> str:
    """The signal's key of an objective that classifies; `UserError` for one that does not."""
    if not hasattr(objective, "logits"):
        raise UserError(
            "this run was trained without labels and has no classes to answer with: fine-tune it first "
            "(unveil finetune RUN --data LABELLED --out NEW), or evaluate --by knn, linear or attentive"
        )
    return objective.key  # pyright: ignore[reportReturnType]
