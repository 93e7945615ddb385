"""antoine77340/S3D_HowTo100M: the video tower of MIL-NCE."""

from __future__ import annotations

from typing import Any

from unveil.errors import UserError
from unveil.weights import _inception
from unveil.weights._converted import Converted, Reader, State

BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
#: Shape of the first convolution's kernel, channels first → its kind here.
STEMS: dict[tuple[int, ...], str] = {(3, 3, 7, 7): "flat", (24, 2, 4, 4): "blocks"}
#: Their kind of convolution with its norm → ours; what is taken apart has two of each.
ONE = {r"conv1\.": "conv.", r"bn1\.": "norm."}
TWO = {r"conv1\.": "0.conv.", r"bn1\.": "0.norm.", r"conv2\.": "1.conv.", r"bn2\.": "1.norm."}


def _rules() -> dict[str, str]:
    rules = {rf"conv_2b\.{theirs}": f"encoder.stem.conv2.{ours}" for theirs, ours in ONE.items()}
    rules |= {rf"conv_2c\.{theirs}": f"encoder.stem.conv3.{ours}" for theirs, ours in TWO.items()}
    rules |= {r"gating\.fc\.": "encoder.stem.gate.linear.", r"fc\.": "head.linear."}
    for number, name in enumerate(BLOCKS):
        begin, block = rf"mixed_{name}\.", f"encoder.blocks.{number}."
        for theirs, ours in ONE.items():
            rules[rf"{begin}conv_b0\.{theirs}"] = f"{block}point.{ours}"
            rules[rf"{begin}conv_b1_a\.{theirs}"] = f"{block}conv1.0.{ours}"
            rules[rf"{begin}conv_b2_a\.{theirs}"] = f"{block}conv2.0.{ours}"
            rules[rf"{begin}conv_b3_b\.{theirs}"] = f"{block}pooled.1.{ours}"
        for theirs, ours in TWO.items():
            rules[rf"{begin}conv_b1_b\.{theirs}"] = f"{block}conv1.1.{ours}"
            rules[rf"{begin}conv_b2_b\.{theirs}"] = f"{block}conv2.1.{ours}"
        rules[rf"{begin}gating_b(\d)\.fc\."] = rf"{block}gates.\1.linear."
    return rules


RULES = _rules()


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. What embeds text is left out, and said; "classes" of the tower as published are the 512
    values of its joint embedding.

    Raises:
        UserError: the first convolution is of neither kind.
    """
    given = Reader(state)
    weight = given["conv1.conv1.weight"]
    stem = STEMS.get(tuple(weight.shape[1:]))
    if stem is None:
        raise UserError(
            f"The checkpoint's first convolution is of shape {tuple(weight.shape)}: neither 3×7×7 nor blocks."
        )
    first = "1." if stem == "blocks" else ""
    stems = {theirs: f"encoder.stem.conv1.{first}{ours}" for theirs, ours in ONE.items()}
    ours = _inception.renamed(given, RULES | {rf"conv1\.{theirs}": ours for theirs, ours in stems.items()})
    text = [given[name] for name in given if name.startswith("text_module.")]
    notes = [f"the text tower ({len(text)} tensors) is left out"] if text else []
    found: dict[str, Any] = {"size": _inception.size_of(len(weight)), "stem": stem}
    if "fc.weight" in given:
        found["num_classes"] = len(given["fc.weight"])
    absent = () if "num_classes" in found else ("head.",)
    return Converted("s3dg", found, ours, absent, given.unused, notes)
