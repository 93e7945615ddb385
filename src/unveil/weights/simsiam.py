"""facebookresearch/simsiam: `SimSiam`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _torchvision
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (facebookresearch/simsiam)"


def convert(state: State, **hints: Any) -> Converted:
    """See `unveil.weights.convert`."""
    given = Reader(state)
    ours, flags = _torchvision.inside(given, {r"encoder\.": ""}, {r"predictor\.": "predictor."})
    flags |= {"dim": len(ours["projector.6.weight"]), "hidden": len(ours["predictor.0.weight"])}
    return Converted("simsiam", flags, ours, unused=given.unused)
