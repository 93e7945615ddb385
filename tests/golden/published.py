"""Published sizes: the rows of published.csv that belong to recipes of ours, and ours beside them.

`published.yaml` names the recipe and flags of each row, or says why it is left out. Every row of a system in that file must be there.
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
WHICH, COLUMNS = ("system", "variant", "input"), ("params_M", "gmacs")


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
    systems = {entry["system"] for entry in known}
    found, used = [], []
    with (HERE / "published.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["system"] in systems]
    for row in table:
        entries = [entry for entry in known if all(row[key] == entry[key] for key in WHICH if key in entry)]
        assert len(entries) == 1, f"published.yaml has {len(entries)} entries for {[row[key] for key in WHICH]}"
        numbers = [float(row[column]) if row[column] else None for column in COLUMNS]
        found.append(Row(*(row[key] for key in WHICH), *numbers, row["source"], entries[0]))
        used.append(entries[0])
    strange = [entry for entry in known if entry not in used]
    assert not strange, f"no rows of published.csv: {strange}"
    return found


def ours(row: Row) -> tuple[float, float]:
    """Millions of parameters and 10⁹ multiply–adds of our network, counted as the reference's were.

    Masked patches that are dropped are never projected here; the references project all of them, so that is added.
    """
    function = recipes.find(row.build["recipe"])
    with torch.device("meta"):
        recipe = assemble(function, expand(function, None, row.build.get("flags", {})))
    objective: Any = recipe.objective
    tensors = [*objective.parameters()]
    if row.build.get("tables"):
        tensors += [buffer for name, buffer in objective.named_buffers() if name.endswith(".table")]
    count = gmacs(recipe)
    if hasattr(objective, "masked") and objective.encoder.masked == "drop":
        hidden = objective.masked(sample(recipe)).masked.shape[1]
        count += hidden * objective.encoder.patchify.width * objective.encoder.width / 1e9
    return sum(tensor.numel() for tensor in tensors) / 1e6, count
