"""Weighted nearest neighbours on frozen features.

Wu, Xiong, Yu, Lin. Unsupervised feature learning via non-parametric instance discrimination. CVPR 2018 (section 3.4);
with the numbers of DINO (Caron et al. ICCV 2021): k = 20, temperature 0.07.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unveil.evaluation.features import Features
from unveil.evaluation.neighbours import neighbours
from unveil.evaluation.report import summarise

K = 20
TEMPERATURE = 0.07


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class indices [n] or multi-hot labels [n,classes] → float32 [n,classes]."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels.long(), classes).float()


def knn(
    gallery: Tensor,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int = K,
    temperature: float = TEMPERATURE,
    chunk: int = 1024,
) -> Tensor:
    """The share of each class among a query's neighbours, each weighted by exp(cosine similarity / temperature).

    Args:
        gallery: [n,D], of known samples.
        labels: their classes, int64 [n] or multi-hot [n,classes].
        queries: [m,D].
        classes: their number.
        k: neighbours; at most n are taken.
        temperature: of the weights.
        chunk: queries compared at once.

    Returns:
        Tensor: [m,classes], rows sum to 1 (with single labels).
    """
    gallery = F.normalize(gallery.float(), dim=1)
    hot = one_hot(labels, classes).to(gallery.device)
    k = min(k, len(gallery))
    scores = []
    for query in F.normalize(queries.float(), dim=1).split(chunk):
        similarity, rows = neighbours(gallery, query, k)
        weight = (similarity / temperature).softmax(1)  # = exp(s/T) over their sum
        scores.append(torch.einsum("qk,qkc->qc", weight, hot[rows]))
    return torch.cat(scores) if scores else hot.new_zeros(0, classes)


def knn_accuracy(gallery: Features, queries: Features, classes: Sequence[str]) -> float:
    """Top-1 of the nearest neighbours, or mean average precision with several labels: one number for a log."""
    x, labels = gallery.labelled()
    queried, truth = queries.labelled()
    scores = knn(x, labels, queried, len(classes))
    metrics = summarise("knn", scores, truth, torch.arange(len(truth)), classes).metrics
    return metrics["top1"] if "top1" in metrics else metrics["map"]
