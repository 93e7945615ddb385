"""pycls: names of blocks."""

from __future__ import annotations

from torch import Tensor

from unveil.weights._converted import State

BLOCK = r"s(\d)\.b(\d+)\."
OURS = r"encoder.blocks.<\1,\2>."
RULES = {
    rf"{BLOCK}proj\.": f"{OURS}shortcut.conv.",
    rf"{BLOCK}bn\.": f"{OURS}shortcut.norm.",
    rf"{BLOCK}f\.se\.f_ex\.0\.": f"{OURS}branch.squeeze.fc1.",
    rf"{BLOCK}f\.se\.f_ex\.2\.": f"{OURS}branch.squeeze.fc2.",
    rf"{BLOCK}f\.([abc])_bn\.": rf"{OURS}branch.\3.norm.",
    rf"{BLOCK}f\.([abc])\.": rf"{OURS}branch.\3.conv.",
    r"head\.fc\.": "head.linear.",
}


def renamed_norms(state: State) -> State:
    """The stem's norm, which has its own name here."""
    return {name.replace(".bn.", ".norm."): tensor for name, tensor in state.items()}


def turned(kernel: Tensor, notes: list[str]) -> Tensor:
    """The first kernel, for red, green, blue: pycls reads images as OpenCV does."""
    notes.append("the first kernel is turned around: pycls' networks see blue, green, red; --bgr false leaves it")
    return kernel.flip(1)
