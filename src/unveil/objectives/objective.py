"""What the training loop knows of a system."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unveil.masking import Mask


class Objective(nn.Module):
    """A module from a batch to losses; it knows nothing of devices, processes, files or optimisers."""

    @property
    def towers(self) -> dict[str, nn.Module]:
        """The encoders, by the key of their signal: what outlives pre-training."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """
        Args:
            batch: see the glossary of keys in docs/design.md.
            mask: use this mask instead of drawing one.
            state: what an objective with a memory returned at the step before, under "state".

        Returns:
            {"loss": scalar, …scalars to log}.
        """
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Called before each step of the optimiser; `progress` goes from 0 to 1 over the training."""

    def after_step(self, progress: float) -> None:
        """Called after each step: momentum encoders, queues, schedules move here."""
