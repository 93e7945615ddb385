"""Has an encoder collapsed? What a run's log says of it, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unveil.serve.curves import points

LINE = 1.5
"""Directions (see `objectives.directions`, `evaluation.rankme`) below which everything lies on one line, near enough."""
POINT = 0.02
"""Spread (see `objectives.spread`) below which everything is one point: a fiftieth of what evenly spread directions have."""
FEWEST = 4
"""Samples in a micro-batch that can differ along more directions than these."""
LAST = 10
"""The share of the steps that is looked at: the last tenth."""


def collapse(log: Sequence[Mapping[str, Any]], samples: int = FEWEST) -> list[str]:
    """Sentences on what has collapsed, none where nothing has: features of the encoder, projections, keys of a queue.

    Args:
        log: of a run.
        samples: in a micro-batch; of fewer than `FEWEST` the directions say nothing.
    """
    sentences = []
    rank, spread = _last(log, "rankme"), _last(log, "feature_std")
    if (rank is not None and rank < LINE) or (spread is not None and spread < POINT):
        told = [f"RankMe is {rank:.2f}"] * (rank is not None) + [f"their spread is {spread:.3f}"] * (spread is not None)
        sentences.append(
            f"The encoder has collapsed: it gives all samples nearly the same features. {' and '.join(told)}; below a RankMe of "
            f"{LINE:g} they lie along one direction, below a spread of {POINT:g} (1: everywhere) at one point. "
            "Nothing can be told apart by them."
        )
    directions, spread = _last(log, "projection_directions"), _last(log, "projection_std")
    on_a_line = directions is not None and directions < LINE and samples >= FEWEST
    if on_a_line or (spread is not None and spread < POINT):
        sentences.append(
            f"The projections have collapsed: in the last steps those of a micro-batch lay along {directions or 1:.2f} directions, "
            f"with a spread of {spread or 0:.3f}. Up to {LINE:g} directions are one line, on which hardly any two samples differ: "
            "agreement is then reached without looking at them, the loss is at its least and says nothing, and what the "
            "encoder still knows it knew at the start. Usual causes: keys that get a gradient (--stop-gradient false), a projector "
            "without batch norm, a rate that is too high, a momentum that is too low."
        )
    spread = _last(log, "queue_std")
    if spread is not None and spread < POINT:
        sentences.append(f"The keys in the queue have collapsed: their spread is {spread:.3f} (1: everywhere).")
    return sentences


def _last(log: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The mean over the last tenth of the steps, or the last value where none of these has one."""
    line = points(log, key)
    if not line:
        return None
    since = float(log[-1]["step"]) * (1 - 1 / LAST)
    values = [value for step, value in line if step > since] or [line[-1][1]]
    return sum(values) / len(values)
