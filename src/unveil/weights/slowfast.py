"""slowfast of facebookresearch/SlowFast and of PyTorchVideo."""

from __future__ import annotations

from typing import Any

from unveil.weights import _pyslowfast, pytorchvideo
from unveil.weights._converted import Converted, State

LICENCE = _pyslowfast.LICENCE


def convert(state: State, **hints: Any) -> Converted:
    """See `unveil.weights.convert`."""
    family = pytorchvideo if pytorchvideo.recognises(state) else _pyslowfast
    return family.convert(state, "slowfast", **hints)
