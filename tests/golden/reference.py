"""Read golden files: what published implementations computed from weights and inputs made of their names alone.

Each `<system>-<variant>.json` lists the reference's own parameter names and shapes. `fill` makes the tensors again; `agree`
compares a tensor of ours with the few numbers the file keeps of the reference's.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent


def read(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text())


def fill(name: str, shape: list[int]) -> Tensor:
    """Numbers that are a function of the name: from numpy's legacy generator, whose stream never changes."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape, dtype=np.int64)))
    values = values.reshape(shape)
    if not name.startswith("input:"):
        last = name.rsplit(".", 1)[-1]
        if len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif any(word in last for word in ("weight", "gamma", "scale")):
            values = 1 + 0.1 * values
        else:
            values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def state_of(golden: dict[str, Any]) -> dict[str, Tensor]:
    """The reference's parameters; what its constructor makes (fixed tables) is left out."""
    return {name: fill(name, shape) for name, shape in golden["state"] if name not in golden.get("kept", [])}


def inputs_of(golden: dict[str, Any]) -> dict[str, Tensor]:
    return {key: fill(f"input:{key}", shape) for key, shape in golden["inputs"].items()}


def picks(num: int) -> Tensor:
    """Which values of a flattened tensor a file keeps."""
    return torch.from_numpy(np.linspace(0, num - 1, min(32, num)).round().astype(np.int64))


def agree(ours: Tensor, theirs: float | dict[str, Any], noise: float = 0.0, where: Tensor | None = None) -> None:
    """Assert that the largest difference, in standard deviations of the reference, is at most rounding.

    Args:
        ours: tensor of the reference's shape.
        theirs: a number, or {"shape", "mean", "std", "picks"}.
        noise: the reference's own difference between float32 and float64.
        where: bool, of the same shape: compare only these values.
    """
    if not isinstance(theirs, dict):
        assert abs(ours.item() - theirs) / abs(theirs) <= max(1e-4, 3 * noise / abs(theirs))
        return
    assert list(ours.shape) == theirs["shape"]
    flat = ours.detach().double().flatten()
    kept = picks(flat.numel())
    difference = (flat[kept] - torch.tensor(theirs["picks"], dtype=torch.float64)).abs()
    tolerance = max(1e-4, 3 * noise / theirs["std"])
    if where is not None:
        chosen = where.flatten()[kept]
        assert chosen.sum() >= 8, "too few of the kept values can be compared"
        difference = difference[chosen]
    else:
        assert abs(flat.std(correction=0).item() - theirs["std"]) / theirs["std"] <= tolerance
    assert (difference.max() / theirs["std"]).item() <= tolerance
