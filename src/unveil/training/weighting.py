"""How much each class counts in the loss."""

from __future__ import annotations

import torch

from unveil.data import Manifest
from unveil.data.row import label_names


def inverse_frequency(manifest: Manifest, classes: list[str]) -> torch.Tensor:
    """Weights [classes] that make every class count the same in the loss; their mean over samples is 1."""
    count = torch.zeros(len(classes))
    for entry in manifest.table["label"].value_counts().to_pylist():
        for label in label_names(entry["values"]):
            count[classes.index(label)] += entry["counts"]
    return count.sum() / (len(classes) * count.clamp(min=1))
