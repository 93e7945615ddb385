"""Read golden files: what published implementations computed from weights and inputs made of their names alone.

Each `<system>-<variant>.json` lists the reference's own parameter names and shapes. `state_of` and `inputs_of` make the tensors
again; `deviation` measures a tensor of ours against the few numbers that the file keeps of the reference's. What a file says
that is not understood here is an error, never passed over.
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

HERE = Path(__file__).parent

#: What a file may say. The second line is for people.
KEYS = {
    *("system", "variant", "source", "constructor", "state", "kept", "kept_summaries", "special", "aliases", "inputs"),
    *("input_values", "fixed_inputs", "derived_inputs", "mode", "outputs", "gradient", "more_gradients", "float32_vs_float64"),
    *("mask", "notes", "made_with", "params_M_this_config", "params_M_published_size"),
}  # fmt: skip

Golden = dict[str, Any]


def names() -> list[str]:
    """All files, `<system>-<variant>`."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def read(name: str) -> Golden:
    golden = json.loads((HERE / f"{name}.json").read_text())
    if strange := golden.keys() - KEYS:
        raise NotImplementedError(f"{name}.json: the harness does not know {', '.join(sorted(strange))}")
    return golden


def fill(name: str, shape: list[int]) -> Tensor:
    """Numbers that are a function of the name: from numpy's legacy generator, whose stream never changes."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape, dtype=np.int64)))
    values = values.reshape(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "running_var":
        values = 1 + 0.1 * np.abs(values)
    elif not name.startswith("input:"):
        if len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif any(word in last for word in ("weight", "gamma", "scale")):
            values = 1 + 0.1 * values
        else:
            values = 0.1 * values
    return torch.from_numpy(np.asarray(values, np.float32))


#: How a file says that a tensor is filled in another way than by `fill`.
SPECIAL = {
    "fill(name, shape) then every column L2-normalised": lambda name, shape: normalize(fill(name, shape), dim=0),
    "0": lambda name, shape: torch.zeros(shape),
    "1+fill": lambda name, shape: 1 + fill(name, shape),
}


def state_of(golden: Golden, salt: str = "") -> dict[str, Tensor]:
    """The reference's parameters; what its constructor makes (fixed tables) is left out.

    Args:
        golden: what `read` returned.
        salt: put in front of every name before it is filled: other weights of the same kind.
    """
    named_last = {name: group[-1] for group in golden.get("aliases", {}).get("groups", []) for name in group}
    state = {}
    for name, shape in golden["state"]:
        if name in golden.get("kept", []):
            continue
        rule = SPECIAL[golden["special"][name]] if name in golden.get("special", {}) else fill
        state[name] = rule(f"{salt}{named_last.get(name, name)}", shape)
    return state


def inputs_of(golden: Golden, salt: str = "") -> dict[str, Tensor]:
    inputs = {key: fill(f"input:{salt}{key}", shape) for key, shape in golden["inputs"].items()}
    for key, value in (golden.get("input_values", {}) | golden.get("fixed_inputs", {})).items():
        inputs[key] = torch.tensor(value)
    return inputs


def picks(num: int) -> Tensor:
    """Which values of a flattened tensor a file keeps."""
    return torch.from_numpy(np.linspace(0, num - 1, min(32, num)).round().astype(np.int64))


class Deviation(NamedTuple):
    """How far ours is from the reference's, in standard deviations of the reference's (of a lone number: in itself)."""

    found: float
    allowed: float


def deviation(ours: Tensor, theirs: float | dict[str, Any], noise: float = 0.0) -> Deviation:
    """The largest difference, of the values kept and of mean and standard deviation; and what rounding excuses.

    Args:
        ours: tensor of the reference's shape.
        theirs: a number, or {"shape", "mean", "std", "picks"}.
        noise: the reference's own difference between float32 and float64.

    Raises:
        AssertionError: the shapes differ.
    """
    if not isinstance(theirs, dict):
        unit = abs(theirs)
        return Deviation(abs(ours.item() - theirs) / unit, max(1e-4, 3 * noise / unit))
    assert list(ours.shape) == theirs["shape"], f"of shape {list(ours.shape)}, the reference's {theirs['shape']}"
    flat = ours.detach().double().flatten()
    unit = theirs["std"] or 1.0
    differences = [
        (flat[picks(flat.numel())] - torch.tensor(theirs["picks"], dtype=torch.float64)).abs().max().item(),
        abs(flat.mean().item() - theirs["mean"]),
        abs(flat.std(correction=0).item() - theirs["std"]),
    ]
    worst = float("nan") if any(np.isnan(differences)) else max(differences)
    return Deviation(worst / unit, max(1e-4, 3 * noise / unit))
