"""Where to cut a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class Box(NamedTuple):
    """A part of a picture, in pixels; it lies inside."""

    top: int
    left: int
    height: int
    width: int


Crop: TypeAlias = Callable[[int, int], Box]
"""(height, width) of the whole picture → the part that is wanted. Asked once for a sample."""
