"""PyTorchVideo's model zoo: its residual networks, SlowFast, X3D and R(2+1)D."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unveil.weights import _clips
from unveil.weights._converted import Converted, Reader, State
from unveil.weights._residual import placed

LICENCE = "Apache-2.0 (facebookresearch/pytorchvideo)"

#: Inside a block, after its name.
PARTS = {
    r"branch1_conv\.": "shortcut.conv.",
    r"branch1_norm\.": "shortcut.norm.",
    r"branch2\.conv_b\.conv_t\.": "branch.b.conv.0.conv.",
    r"branch2\.conv_b\.norm\.": "branch.b.conv.0.norm.",
    r"branch2\.conv_b\.conv_xy\.": "branch.b.conv.1.",
    r"branch2\.norm_b\.0\.": "branch.b.norm.",
    r"branch2\.norm_b\.1\.block\.0\.": "branch.squeeze.fc1.",
    r"branch2\.norm_b\.1\.block\.2\.": "branch.squeeze.fc2.",
    r"branch2\.conv_a\.": "branch.a.conv.",
    r"branch2\.conv_b\.": "branch.b.conv.",
    r"branch2\.conv_c\.": "branch.c.conv.",
    r"branch2\.norm_a\.": "branch.a.norm.",
    r"branch2\.norm_b\.": "branch.b.norm.",
    r"branch2\.norm_c\.": "branch.c.norm.",
}
HEAD = {
    r"blocks\.\d\.proj\.": "head.linear.",
    r"blocks\.\d\.pool\.pre_conv\.": "encoder.last.conv.",
    r"blocks\.\d\.pool\.pre_norm\.": "encoder.last.norm.",
    r"blocks\.\d\.pool\.post_conv\.": "head.hidden.",
}


#: The first convolution of each kind: one pathway, X3D, SlowFast.
STEMS = ("blocks.0.conv.weight", "blocks.0.conv.conv_t.weight", "blocks.0.multipathway_blocks.0.conv.weight")


def fits(names: Iterable[str]) -> bool:
    """Whether names are of one of these networks."""
    return not set(STEMS).isdisjoint(names)


def rules(names: Iterable[str]) -> dict[str, str]:
    """Published names → ours."""
    names = set(names)
    found = {}
    if "blocks.0.multipathway_blocks.0.conv.weight" in names:
        for number, path in enumerate(("encoder.slow.", "encoder.fast.")):
            found[rf"blocks\.0\.multipathway_blocks\.{number}\."] = f"{path}stem.0."
            for theirs, ours in PARTS.items():
                block = rf"blocks\.(\d)\.multipathway_blocks\.{number}\.res_blocks\.(\d+)\."
                found[block + theirs] = rf"{path}blocks.<\1,\2>.{ours}"
        found[r"blocks\.(\d)\.multipathway_fusion\.conv_fast_to_slow\."] = r"encoder.laterals.\1.fuse.conv."
        found[r"blocks\.(\d)\.multipathway_fusion\.norm\."] = r"encoder.laterals.\1.fuse.norm."
        return found | HEAD
    for theirs, ours in PARTS.items():
        found[rf"blocks\.(\d)\.res_blocks\.(\d+)\.{theirs}"] = rf"encoder.blocks.<\1,\2>.{ours}"
    if "blocks.0.conv.conv_t.weight" in names:  # X3D; what it calls conv_t is over space, and the other way round
        found[r"blocks\.0\.conv\.conv_t\."] = "encoder.stem.0."
        found[r"blocks\.0\.conv\.conv_xy\."] = "encoder.stem.1.conv."
        found[r"blocks\.0\.norm\."] = "encoder.stem.1.norm."
    else:  # R(2+1)D pools nothing, so its stem is no sequence
        stem = "stem" if any(".conv_b.conv_t." in name for name in names) else "stem.0"
        found[r"blocks\.0\.conv\."] = f"encoder.{stem}.conv."
        found[r"blocks\.0\.norm\."] = f"encoder.{stem}.norm."
    return found | HEAD


def convert(state: State, wanted: str | None = None, **hints: Any) -> Converted:
    """See `unveil.weights.convert`; `wanted` as in `_clips.converted`. What it holds is told by names and shapes."""
    given = Reader(state)
    return _clips.converted(given, placed(given, rules(given)), wanted, **hints)
