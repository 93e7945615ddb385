"""Weights that make every class count the same."""

from __future__ import annotations

import pytest

from unveil.data import Manifest, Row
from unveil.training.weighting import inverse_frequency


def test_rare_classes_weigh_more():
    manifest = Manifest.of([Row(f"/{i}.mp4", label) for i, label in enumerate(["a", "a", "a; b", "c;a", "b"])])
    weights = inverse_frequency(manifest, ["a", "b", "c", "d"])
    assert weights.tolist() == pytest.approx([7 / 16, 7 / 8, 7 / 4, 7 / 4])
