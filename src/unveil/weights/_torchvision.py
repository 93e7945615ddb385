"""torchvision's names of residual networks inside of other checkpoints: of a query's encoder, of a key's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unveil.errors import UserError
from unveil.weights import _residual, resnet
from unveil.weights._converted import Reader, State


def inside(given: Reader, encoders: Mapping[str, str], more: Mapping[str, str]) -> tuple[State, dict[str, Any]]:
    """Residual networks under our names, and the flags `size` and `width`.

    Args:
        given: published tensors.
        encoders: what stands before torchvision's names → what stands before ours; the first decides the flags. The last linear
            layers, theirs `fc`, become `projector`.
        more: other rules, see `_residual.placed`.

    Raises:
        UserError: it is a network of another kind.
    """
    rules = dict(more)
    for theirs, ours in encoders.items():
        rules |= {rf"{theirs}fc\.(\d+)\.": rf"{ours}projector.\1.", rf"{theirs}fc\.": f"{ours}projector.0."}
        rules |= {f"{theirs}{name}": f"{ours}{rule}" for name, rule in resnet.TORCHVISION.items() if name != r"fc\."}
    found = _residual.placed(given, rules)
    prefix = next(iter(encoders.values()))
    state = found.state
    stem = state[f"{prefix}encoder.stem.0.conv.weight"]
    if stem.ndim != 4 or stem.shape[-1] != 7:
        raise UserError("These are not the weights of a residual network of images: its first kernel is 7 x 7.")
    middle = state[f"{prefix}encoder.blocks.0.branch.b.conv.weight"]
    deep = f"{prefix}encoder.blocks.0.branch.c.conv.weight" in state
    depths = found.depths[f"{prefix}encoder."]
    return state, {
        "size": resnet.size_of(depths, len(middle), middle.shape[1], len(stem), deep),
        "width": len(stem),
    }
