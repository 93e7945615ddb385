"""Published sizes: the rows of published.csv that belong to recipes of ours, and ours beside them.

`published.yaml` names the recipe and flags of each row: system → variant → {recipe, flags}, or {left_out: why}. A variant that
stands in the table for several inputs has its input behind its name. Every row of a system in the file must be there.
"""

from __future__ import annotations

import csv
from typing import Any, NamedTuple

import torch
import yaml
from reference import HERE

from unveil import recipes
from unveil.flags import assemble, expand
from unveil.sizes import gmacs, sample

#: How far parameters and multiply–adds may be from the published ones.
PARAMETERS, GMACS = 0.005, 0.02
#: Of the table.
COLUMNS = ("params_M", "gmacs")


class Row(NamedTuple):
    """A row of the table: millions of parameters, 10⁹ multiply–adds (None where none are published), and how to build it."""

    system: str
    variant: str
    input: str
    millions: float | None
    gmacs: float | None
    source: str
    build: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.system} {self.variant} {self.input}"


def rows() -> list[Row]:
    """What published.yaml knows how to build, in the table's order.

    Raises:
        AssertionError: a row of a known system is missing there, or something there is no row.
    """
    known = yaml.safe_load((HERE / "published.yaml").read_text())
    with (HERE / "published.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["system"] in known]
    found, used = [], set()
    for row in table:
        variants = known[row["system"]]
        name = next((n for n in (f"{row['variant']} {row['input']}", row["variant"]) if n in variants), None)
        assert name is not None, f"published.yaml lacks {row['system']}: {row['variant']} ({row['input']})"
        used.add((row["system"], name))
        numbers = [float(row[column]) if row[column] else None for column in COLUMNS]
        found.append(Row(row["system"], row["variant"], row["input"], *numbers, row["source"], variants[name]))
    strange = {(system, name) for system, variants in known.items() for name in variants} - used
    assert not strange, f"no rows of published.csv: {strange}"
    return found


def ours(row: Row) -> tuple[float, float]:
    """Millions of parameters and 10⁹ multiply–adds of our network, counted as the reference's were.

    Masked patches are never projected here; the references project all of them, so that is added.
    """
    function = recipes.find(row.build["recipe"])
    with torch.device("meta"):
        recipe = assemble(function, expand(function, None, row.build.get("flags", {})))
    objective: Any = recipe.objective
    tensors = [*objective.parameters()]
    if row.build.get("tables"):
        tensors += [buffer for name, buffer in objective.named_buffers() if name.endswith(".table")]
    count = gmacs(recipe)
    if hasattr(objective, "masked"):
        hidden = objective.masked(sample(recipe)).masked.shape[1]
        count += hidden * objective.encoder.patchify.width * objective.encoder.width / 1e9
    return sum(tensor.numel() for tensor in tensors) / 1e6, count
