"""PyTorchVideo's model zoo: whose network it is, the names tell."""

from __future__ import annotations

from typing import Any

from unveil.errors import UserError
from unveil.weights import _pytorchvideo_mvit
from unveil.weights._converted import Converted, State

LICENCE = "Apache-2.0 (facebookresearch/pytorchvideo)"

KINDS = (_pytorchvideo_mvit,)


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`.

    Raises:
        UserError: it is none of PyTorchVideo's networks that there are here.
    """
    for kind in KINDS:
        if kind.fits(state):
            return kind.convert(state)
    raise UserError("These are not the weights of a network of PyTorchVideo's that is known here.")
