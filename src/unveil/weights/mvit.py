"""PySlowFast's MViT, of clips and images, and torchvision's `mvit_v1_b`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _mvit
from unveil.weights._converted import Converted, State

LICENCE = "Apache-2.0 (facebookresearch/SlowFast)"


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Strides of keys and values are no weights: `kv_stride`, where they are not the published."""
    return _mvit.convert("mvit", _mvit.from_torchvision(state))
