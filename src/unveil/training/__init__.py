"""Recipe → run folder: the only place that knows devices, processes and Lightning."""

from unveil.training.loop import Plan, fit

__all__ = ["Plan", "fit"]
