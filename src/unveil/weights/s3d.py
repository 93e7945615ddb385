"""kylemin/S3D, and torchvision's `s3d`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _inception
from unveil.weights._converted import Converted, Reader, State

LICENCE = "MIT (kylemin/S3D) or BSD-3-Clause (torchvision), whosever file it is"

#: Place of a block in their sequence, pools counted → in ours.
PLACES = {theirs: ours for ours, theirs in enumerate((5, 6, 8, 9, 10, 11, 12, 14, 15))}
BRANCHES = {"branch0": "point", "branch1": "conv1", "branch2": "conv2", "branch3": "pooled"}

#: torchvision normalises Kinetics by its own colours.
COLOURS = {"sample.mean": (0.43216, 0.394666, 0.37645), "sample.std": (0.22803, 0.22145, 0.216989)}


def _rules(base: str, point: dict[str, str], pair: dict[str, str], first: str) -> dict[str, str]:
    """Beginnings of names → ours.

    Args:
        base: of the sequence.
        point: endings of a convolution and its norm → ours.
        pair: the same of a convolution in space and the one in time.
        first: what stands behind the point branch.
    """
    rules = {}
    for theirs, ours in pair.items():
        rules[rf"{base}\.0\.{theirs}\."] = f"encoder.stem.conv1.{ours}."
        rules[rf"{base}\.3\.{theirs}\."] = f"encoder.stem.conv3.{ours}."
    for theirs, ours in point.items():
        rules[rf"{base}\.2\.{theirs}\."] = f"encoder.stem.conv2.{ours}."
    for place, number in PLACES.items():
        for branch, name in BRANCHES.items():
            begin, block = rf"{base}\.{place}\.{branch}\.", f"encoder.blocks.{number}.{name}."
            if name == "point":
                rules |= {rf"{begin}{first}{theirs}\.": f"{block}{ours}." for theirs, ours in point.items()}
            elif name == "pooled":
                rules |= {rf"{begin}1\.{theirs}\.": f"{block}1.{ours}." for theirs, ours in point.items()}
            else:
                rules |= {rf"{begin}0\.{theirs}\.": f"{block}0.{ours}." for theirs, ours in point.items()}
                rules |= {rf"{begin}1\.{theirs}\.": f"{block}1.{ours}." for theirs, ours in pair.items()}
    return rules


KYLEMIN = _rules(
    "base",
    {"conv": "conv", "bn": "norm"},
    {"conv_s": "0.conv", "bn_s": "0.norm", "conv_t": "1.conv", "bn_t": "1.norm"},
    first=r"0\.",
)
TORCHVISION = _rules(
    "features",
    {"0": "conv", "1": "norm"},
    {r"0\.0": "0.conv", r"0\.1": "0.norm", r"1\.0": "1.conv", r"1\.1": "1.norm"},
    first="",
)


def convert(state: State, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. The classifier is a convolution over the pooled map: the same as a linear layer."""
    given = Reader(state)
    torchvisions = "features.0.0.0.weight" in given
    ours = _inception.renamed(given, TORCHVISION if torchvisions else KYLEMIN)
    found: dict[str, Any] = {"size": _inception.size_of(len(ours["encoder.stem.conv1.0.conv.weight"]))}
    head = "classifier.1" if torchvisions else "fc.0"
    if f"{head}.weight" in given:
        ours["head.linear.weight"] = given[f"{head}.weight"].flatten(1)
        ours["head.linear.bias"] = given[f"{head}.bias"]
        found["num_classes"] = len(ours["head.linear.bias"])
    absent = () if "num_classes" in found else ("head.",)
    return Converted("s3d", found | (COLOURS if torchvisions else {}), ours, absent, given.unused)
