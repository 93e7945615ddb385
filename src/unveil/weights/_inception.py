"""What the families that descend from I3D's Inception have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from unveil.encoders.s3d import STAGES, STEM, WIDTHS
from unveil.errors import UserError
from unveil.layers.separable import scaled
from unveil.weights._converted import Reader, State

BLOCKS = sum(map(len, STAGES))


def size_of(width: int) -> str:
    """The size whose first convolution has so many channels.

    Raises:
        UserError: there is none.
    """
    sizes = {scaled(STEM[0], factor): name for name, factor in WIDTHS.items()}
    if width not in sizes:
        raise UserError(
            f"The checkpoint's first convolution has {width} channels; there are {', '.join(map(str, sizes))}."
        )
    return sizes[width]


def renamed(given: Reader, rules: Mapping[str, str]) -> State:
    """Tensors whose names a rule fits from the beginning on (the first that does), under the rule's replacement."""
    ours: dict[str, Tensor] = {}
    for name in given:
        for theirs, replacement in rules.items():
            if re.match(theirs, name):
                ours[re.sub(f"^{theirs}", replacement, name)] = given[name]
                break
    return ours
