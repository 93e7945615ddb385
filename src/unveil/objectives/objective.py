"""What the training loop knows of a system."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from unveil.masking import Mask


class Objective(nn.Module):
    """A module from a batch to losses; it knows nothing of devices, processes, files or optimisers."""

    views: int = 1
    """Views of a sample that a batch holds: the signal is [B,views,…] where there are several."""

    contrasts: bool = False
    """Whether the samples of a micro-batch, of all processes, are one another's negatives; the log then says how many."""

    shows: str = ""
    """What its reconstructions show, in sentences for a report, where it makes some."""

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

    def started(self, fresh: Collection[str]) -> None:
        """Called when weights from elsewhere were loaded (`--start`); `fresh` are the names that they did not have."""

    def statistics(self) -> dict[str, float]:
        """What is worth logging ten times a run rather than at every step: of queues, memories, code books."""
        return {}

    def before_step(self, progress: float) -> None:
        """Called before each step of the optimiser; `progress` goes from 0 to 1 over the training."""

    def after_step(self, progress: float) -> None:
        """Called after each step: momentum encoders, queues, schedules move here."""
