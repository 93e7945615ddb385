"""A batch → what is to be predicted at the masked places."""

from unveil.targets.pixels import Pixels, truncated_linspace
from unveil.targets.target import Drawable, Target

__all__ = ["Drawable", "Pixels", "Target", "truncated_linspace"]
