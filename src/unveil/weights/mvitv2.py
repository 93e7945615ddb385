"""facebookresearch/mvit (images), PySlowFast's MViTv2 (clips and images), and torchvision's `mvit_v2_s`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _mvit
from unveil.weights._converted import Converted, State

LICENCE = "Apache-2.0 (facebookresearch/mvit, facebookresearch/SlowFast)"


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Strides of keys and values are no weights: `kv_stride`, where they are not the published."""
    return _mvit.convert("mvitv2", _mvit.from_torchvision(state))
