"""A batch → what is to be predicted at the masked places."""

from unveil.targets.pixels import Pixels, truncated_linspace

__all__ = ["Pixels", "truncated_linspace"]
