"""PyTorchVideo's model zoo: whose network it is, the names tell."""

from __future__ import annotations

from typing import Any

from unveil.errors import UserError
from unveil.weights import _pytorchvideo_clips, _pytorchvideo_mvit
from unveil.weights._converted import Converted, State

LICENCE = _pytorchvideo_clips.LICENCE

KINDS = (_pytorchvideo_mvit, _pytorchvideo_clips)


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`.

    Raises:
        UserError: it is none of PyTorchVideo's networks that there are here.
    """
    for kind in KINDS:
        if kind.fits(state):
            return kind.convert(state, **flags)
    raise UserError("These are not the weights of a network of PyTorchVideo's that is known here.")
