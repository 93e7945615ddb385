"""A state dict into a network that is not quite the one it was saved from; and what became of each tensor, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Adaptable(Protocol):
    """A module that can use tensors saved for another shape (positions of another grid, patches of another size)."""

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Change what lies in `state` under `prefix` to this module's shapes, in place; returns the names of it."""
        ...


@dataclass
class Fitted:
    """What became of the tensors.

    Attributes:
        source: where they came from.
        loaded: names of those that fit as they are.
        resized: name → shapes before and after, of those that were interpolated or resampled.
        replaced: name → shapes, there and here, of those that do not fit; the network's own stayed as initialised.
        fresh: names that the source does not have; as initialised.
        unused: names that the network does not have.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    replaced: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What a person should know: one line for each kind that there is."""
        lines = [f"started from {self.source}: {len(self.loaded) + len(self.resized)} tensors"]
        for names, text in (
            (_shapes(self.resized), "resized to the new shape"),
            (_shapes(self.replaced), "of another shape, so begun anew"),
            (_few(self.fresh), "new, as initialised"),
            (_few(self.unused), "not used here"),
        ):
            if names:
                lines.append(f"{text}: {names}")
        return lines


def _few(names: list[str]) -> str:
    tops = list(dict.fromkeys(name if len(names) < 7 else ".".join(name.split(".")[:2]) for name in names))
    return ", ".join(tops[:8]) + (" …" if len(tops) > 8 else "")


def _shapes(changed: Mapping[str, tuple[list[int], list[int]]]) -> str:
    return ", ".join(
        f"{name} ({' × '.join(map(str, before))} → {' × '.join(map(str, after))})"
        for name, (before, after) in list(changed.items())[:8]
    ) + (" …" if len(changed) > 8 else "")


def fit(network: nn.Module, state: Mapping[str, Tensor], source: str = "") -> Fitted:
    """Load every tensor whose name fits, and whose shape does or can be made to.

    Args:
        network: takes the tensors; what none fits stays as it is.
        state: in the network's names. Not changed.
        source: where it came from, for the report.
    """
    own = network.state_dict()
    adapted, given = dict(state), dict(state)
    for prefix, module in network.named_modules():
        if isinstance(module, Adaptable):
            module.adapt(adapted, f"{prefix}." if prefix else "")
            # What was one for several parts (positions that blocks shared) comes under names of its own.
            given |= {name: adapted[name] for name in adapted.keys() - given.keys()}
    ours = {name: value for name, value in adapted.items() if name in own}
    report = Fitted(source, unused=[name for name in adapted if name not in own])
    fitting = {}
    for name, value in ours.items():
        before, after = list(given[name].shape), list(own[name].shape)
        if list(value.shape) != after:
            report.replaced[name] = (before, after)
            continue
        fitting[name] = value
        if value is given[name]:
            report.loaded.append(name)
        elif not name.endswith(".native"):  # says of which grid a table is; the table itself is named
            report.resized[name] = (before, after)
    report.fresh = [name for name in own if name not in ours]
    network.load_state_dict(fitting, strict=False)
    return report
