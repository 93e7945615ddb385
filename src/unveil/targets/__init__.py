"""A batch → what is to be predicted at the masked places."""

from unveil.targets.codes import Codes
from unveil.targets.contextual import Contextual
from unveil.targets.hog import HOG
from unveil.targets.pixels import Pixels, truncated_linspace
from unveil.targets.target import Drawable, Target

__all__ = ["HOG", "Codes", "Contextual", "Drawable", "Pixels", "Target", "truncated_linspace"]
