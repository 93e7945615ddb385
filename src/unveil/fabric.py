"""Fabric, imported without what it does not need."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType


def import_fabric() -> None:
    """Import `lightning_fabric`, in half the time.

    It asks for torchmetrics' version while it is imported, and would import the whole of that to find out, SciPy and all. It is
    told the version; whoever wants metrics imports them afterwards.
    """
    told = None
    if "torchmetrics" not in sys.modules:
        told = sys.modules["torchmetrics"] = ModuleType("torchmetrics")
        told.__version__ = version("torchmetrics")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        import_module("lightning_fabric")
    finally:
        if told is not None:
            del sys.modules["torchmetrics"]
