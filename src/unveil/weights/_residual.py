"""What the families of residual networks have in common: blocks counted through, and what names and shapes say of a network."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from unveil.encoders import DEPTHS
from unveil.errors import UserError
from unveil.weights._converted import Reader, State


class Placed(NamedTuple):
    """Tensors under our names, and the depths of the stages under each prefix ("encoder.", "encoder.slow.")."""

    state: State
    depths: dict[str, tuple[int, ...]]


def placed(given: Reader, rules: Mapping[str, str]) -> Placed:
    """Tensors under what the first rule that fits says of their names.

    Args:
        given: published tensors; those that no rule fits are not read.
        rules: pattern of a published name's beginning → ours. A block is written `blocks.<stage,block>`, in any numbers that
            ascend; it becomes `blocks.N`.
    """
    named: State = {}
    for name in given:
        for pattern, ours in rules.items():
            found, times = re.subn(f"^{pattern}", ours, name)
            if times:
                named[found] = given[name]
                break
    where = re.compile(r"(.*?)blocks\.<(\d+),(\d+)>")
    blocks: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name in named:
        if match := where.match(name):
            blocks[match[1]][int(match[2])].add(int(match[3]))
    count = {
        (prefix, stage, block): number
        for prefix, stages in blocks.items()
        for number, (stage, block) in enumerate(
            (stage, block) for stage in sorted(stages) for block in sorted(stages[stage])
        )
    }
    state = {
        where.sub(lambda match: f"{match[1]}blocks.{count[match[1], int(match[2]), int(match[3])]}", name): tensor
        for name, tensor in named.items()
    }
    return Placed(
        state, {prefix: tuple(len(stages[stage]) for stage in sorted(stages)) for prefix, stages in blocks.items()}
    )


def layers(depths: tuple[int, ...]) -> int:
    """Layers of a bottleneck network of these depths.

    Raises:
        UserError: no published one has them.
    """
    found = next((number for number, blocks in DEPTHS.items() if blocks == depths and number >= 50), None)
    if found is None:
        raise UserError(f"No published network has stages of {', '.join(map(str, depths))} blocks.")
    return found


def classes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The number of classes, where there is a classifier."""
    return {"num_classes": len(state["head.linear.weight"])} if "head.linear.weight" in state else {}


def absent(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What a file without classifier lacks."""
    return () if "head.linear.weight" in state else ("head.",)
