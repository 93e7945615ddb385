"""facebookresearch/moco: `MoCo` of versions 1 and 2, with both encoders and the queue."""

from __future__ import annotations

from typing import Any

from unveil.weights import _torchvision
from unveil.weights._converted import Converted, Reader, State

LICENCE = "MIT (facebookresearch/moco; earlier CC-BY-NC-4.0)"

ENCODERS = {r"encoder_q\.": "", r"encoder_k\.": "momentum."}


def convert(state: State, **hints: Any) -> Converted:
    """See `unveil.weights.convert`. Two layers after the encoder are version 2's, with its temperature and augmentation."""
    given = Reader(state)
    ours, flags = _torchvision.inside(given, ENCODERS, {})
    mlp = "projector.2.weight" in ours
    flags |= {"mlp": mlp, "dim": len(ours["projector.2.weight" if mlp else "projector.0.weight"])}
    flags |= {"temperature": 0.2, "augment": "v2"} if mlp else {}
    absent = []
    if "queue" in given:
        keys = given["queue"].T
        flags["queue"] = len(keys)
        # Where the next goes; that all places hold a key is taken for granted.
        ours |= {"queue.keys": keys, "queue.count": (len(keys) + given["queue_ptr"].detach()).long().reshape(())}
    else:
        absent.append("queue.")
    absent += [] if any(name.startswith("momentum.") for name in ours) else ["momentum."]
    return Converted("moco", flags, ours, tuple(absent), given.unused)
