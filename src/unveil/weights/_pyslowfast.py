"""facebookresearch/SlowFast: `ResNet`, `SlowFast` and `X3D` of `video_model_builder`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _clips
from unveil.weights._converted import Converted, Reader, State
from unveil.weights._residual import placed

LICENCE = "Apache-2.0 (facebookresearch/SlowFast)"

#: Inside a block, after its name.
PARTS = {
    r"branch1\.": "shortcut.conv.",
    r"branch1_bn\.": "shortcut.norm.",
    r"branch2\.se\.": "branch.squeeze.",
    r"branch2\.([abc])\.": r"branch.\g<part>.conv.",
    r"branch2\.([abc])_bn\.": r"branch.\g<part>.norm.",
}


def rules(paths: dict[int, str]) -> dict[str, str]:
    """Published names → ours.

    Args:
        paths: number of a pathway → what stands before its names here.
    """
    found = {}
    for number, path in paths.items():
        found[rf"s1\.pathway{number}_stem\.conv_xy\."] = f"{path}stem.0."
        found[rf"s1\.pathway{number}_stem\.conv\."] = f"{path}stem.0.conv."
        found[rf"s1\.pathway{number}_stem\.bn\."] = f"{path}stem.0.norm."
        block = rf"s(\d)\.pathway{number}_res(\d+)\."
        for theirs, ours in PARTS.items():
            found[block + theirs] = rf"{path}blocks.<\1,\2>." + ours.replace(r"\g<part>", r"\3")
        looks = rf"s(\d)\.pathway{number}_nonlocal(\d+)\."
        found[rf"{looks}conv_(theta|phi|g|out)\."] = rf"{path}blocks.<\1,\2>.inserted.\3."
        found[rf"{looks}bn\."] = rf"{path}blocks.<\1,\2>.inserted.norm."
    for stage in range(1, 5):
        found[rf"s{stage}_fuse\.conv_f2s\."] = f"encoder.laterals.{stage - 1}.fuse.conv."
        found[rf"s{stage}_fuse\.bn\."] = f"encoder.laterals.{stage - 1}.fuse.norm."
    return found | {
        r"head\.projection\.": "head.linear.",
        r"head\.conv_5\.": "encoder.last.conv.",
        r"head\.conv_5_bn\.": "encoder.last.norm.",
        r"head\.lin_5\.": "head.hidden.",
    }


def convert(state: State, wanted: str | None = None, **hints: Any) -> Converted:
    """See `unveil.weights.convert`; `wanted` as in `_clips.converted`."""
    given = Reader(state)
    two = "s1.pathway1_stem.conv.weight" in given
    named = rules({0: "encoder.slow.", 1: "encoder.fast."} if two else {0: "encoder."})
    if "s1.pathway0_stem.conv_xy.weight" in given:  # the channelwise half of X3D's stem, which has the norm
        named[r"s1\.pathway0_stem\.conv\."] = "encoder.stem.1.conv."
        named[r"s1\.pathway0_stem\.bn\."] = "encoder.stem.1.norm."
    return _clips.converted(given, placed(given, named), wanted, **hints)
