"""Run, data → numbers. Any trained network × any evaluation.

`EVALUATORS[name](subject, train, test, **options) -> Report`, where train and test are the batches of the evaluation loader
(`batch[key]` is [B,V,…], with `label` and `index`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unveil.errors import UserError
from unveil.evaluation.accuracy import accuracy
from unveil.evaluation.attentive import attentive_probe
from unveil.evaluation.codebook import CodeBook, codebook
from unveil.evaluation.features import Features, extract, extract_tokens, pooled
from unveil.evaluation.knn import TEMPERATURE, K, knn, knn_accuracy
from unveil.evaluation.language import recalls, retrieval, zero_shot
from unveil.evaluation.linear import PENALTIES, linear_probe
from unveil.evaluation.rankme import rankme
from unveil.evaluation.report import Report, summarise

__all__ = [
    "EVALUATORS",
    "CodeBook",
    "Features",
    "Report",
    "Subject",
    "accuracy",
    "attentive_probe",
    "codebook",
    "extract",
    "extract_tokens",
    "knn",
    "knn_accuracy",
    "linear_probe",
    "pooled",
    "rankme",
    "recalls",
    "retrieval",
    "summarise",
    "zero_shot",
]

Batches = Iterable[Mapping[str, Any]]


@dataclass
class Subject:
    """What is evaluated.

    Args:
        objective: whole, for its classifier; None when only the encoder is looked at.
        encoder: the tower.
        key: of its signal.
        classes: names, in the order of the data's labels.
        device: where both are.
    """

    objective: nn.Module | None
    encoder: nn.Module
    key: str
    classes: Sequence[str]
    device: torch.device | str = "cpu"


def by_accuracy(subject: Subject, train: Batches | None, test: Batches) -> Report:
    """The run's own classifier on `test`; `train` is not looked at."""
    if subject.objective is None:
        raise UserError("--by accuracy evaluates a trained classifier, and there is only an encoder: use --by knn")
    return accuracy(subject.objective, test, subject.classes, subject.device)


def by_knn(
    subject: Subject,
    train: Batches | None,
    test: Batches,
    layer: int | None = None,
    pool: str = "mean",
    k: int = K,
    temperature: float = TEMPERATURE,
) -> Report:
    """Nearest neighbours: gallery `train`, queries `test`. See `knn.knn`."""
    gallery, queries = _both(subject, train, test, extract, layer=layer, pool=pool)
    x, labels = gallery.labelled()
    scores = knn(x, labels, queries.x, len(subject.classes), k, temperature)
    k = min(k, len(x))
    return _report("knn", subject, scores, queries, layer=layer, pool=pool, k=k, temperature=temperature)


def by_linear(
    subject: Subject,
    train: Batches | None,
    test: Batches,
    layer: int | None = None,
    pool: str = "mean",
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> Report:
    """Logistic regression on one vector a sample. See `linear.linear_probe`."""
    known, queries = _both(subject, train, test, extract, layer=layer, pool=pool)
    x, labels = known.labelled()
    x, q = x.to(subject.device), queries.x.to(subject.device)
    scores, penalty = linear_probe(x, labels, q, len(subject.classes), penalties, seed)
    return _report("linear", subject, scores, queries, layer=layer, pool=pool, penalty=penalty, seed=seed)


def by_attentive(
    subject: Subject,
    train: Batches | None,
    test: Batches,
    layer: int | None = None,
    lrs: Sequence[float] = (1e-3,),
    epochs: int | None = None,
    batch: int = 32,
    weight_decay: float = 0.01,
    heads: int | None = None,
    seed: int = 0,
) -> Report:
    """A learned query over frozen tokens. See `attentive.attentive_probe`."""
    known, queries = _both(subject, train, test, extract_tokens, layer=layer)
    x, labels = known.labelled()
    scores, lr = attentive_probe(
        x,
        labels,
        queries.x,
        len(subject.classes),
        device=subject.device,
        lrs=lrs,
        epochs=epochs,
        batch=batch,
        weight_decay=weight_decay,
        heads=heads,
        seed=seed,
    )
    return _report("attentive", subject, scores, queries, layer=layer, lr=lr, epochs=epochs, batch=batch, seed=seed)


EVALUATORS: dict[str, Callable[..., Report]] = {
    "accuracy": by_accuracy,
    "knn": by_knn,
    "linear": by_linear,
    "attentive": by_attentive,
}


def _both(
    subject: Subject, train: Batches | None, test: Batches, take: Callable[..., Features], **how: Any
) -> tuple[Features, Features]:
    if train is None:
        raise UserError(
            "this evaluation learns from labelled samples, and there is only a test split: give folders train/ and test/, "
            "a column split in labels.csv, or --val-fraction"
        )
    known = take(subject.encoder, train, subject.key, subject.device, **how)
    if known.labels is None:
        known.labelled()  # says so, before the second half of the work
    queries = take(subject.encoder, test, subject.key, subject.device, **how)
    queries.labelled()
    return known, queries


def _report(name: str, subject: Subject, scores: torch.Tensor, queries: Features, **settings: Any) -> Report:
    assert queries.labels is not None
    report = summarise(name, scores, queries.labels, queries.indices, subject.classes, **settings)
    report.bad = list(queries.bad)
    return report
