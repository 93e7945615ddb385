"""What a name map makes of a published checkpoint, and how it reads one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

State = dict[str, Tensor]


class Converted(NamedTuple):
    """A published checkpoint in our terms.

    Attributes:
        recipe: the function that builds its network: "mae", "mae:finetune".
        flags: with which it does; what the checkpoint's shapes and names tell.
        state: the tensors under the objective's names. Made of the published ones by differentiable operations alone, so
            that a gradient can be asked for with respect to those.
        absent: prefixes of parts that such a file may lack (an encoder published without its decoder).
        unused: published names that have no place here.
        notes: what had to be assumed, as sentences.
    """

    recipe: str
    flags: dict[str, Any]
    state: State
    absent: tuple[str, ...] = ()
    unused: Sequence[str] = ()
    notes: Sequence[str] = ()


class Reader(Mapping[str, Tensor]):
    """A published state dict that remembers which of its names were read: the others are reported."""

    def __init__(self, state: Mapping[str, Tensor]):
        self._state = state
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        value = self._state[name]
        self._read.add(name)
        return value

    def __contains__(self, name: object) -> bool:  # the mapping's own would read
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def renamed(self, rules: Mapping[str, str]) -> State:
        """Tensors whose names begin as a rule does (the first that fits), under what the rule says."""
        renamed = {}
        for name in self:
            for old, new in rules.items():
                if name.startswith(old):
                    renamed[new + name.removeprefix(old)] = self[name]
                    break
        return renamed

    @property
    def unused(self) -> list[str]:
        """Names that were not read, in order."""
        return [name for name in self if name not in self._read]
