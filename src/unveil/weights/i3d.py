"""i3d of facebookresearch/SlowFast and of PyTorchVideo."""

from __future__ import annotations

from typing import Any

from unveil.weights import _pyslowfast, _pytorchvideo_clips
from unveil.weights._converted import Converted, State

LICENCE = _pyslowfast.LICENCE


def convert(state: State, **hints: Any) -> Converted:
    """See `unveil.weights.convert`."""
    family = _pytorchvideo_clips if _pytorchvideo_clips.fits(state) else _pyslowfast
    return family.convert(state, "i3d", **hints)
