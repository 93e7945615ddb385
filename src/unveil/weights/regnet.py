"""pycls' and torchvision's `RegNet`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _pycls, _residual
from unveil.weights._converted import Converted, Reader, State

LICENCE = "MIT (facebookresearch/pycls); torchvision's: BSD-3-Clause"

PYCLS = _pycls.RULES | {r"stem\.conv\.": "encoder.stem.conv.", r"stem\.bn\.": "encoder.stem.norm."}
BLOCK = r"trunk_output\.block(\d)\.block\d-(\d+)\."
OURS = r"encoder.blocks.<\1,\2>."
TORCHVISION = {
    r"stem\.0\.": "encoder.stem.conv.",
    r"stem\.1\.": "encoder.stem.norm.",
    rf"{BLOCK}proj\.0\.": f"{OURS}shortcut.conv.",
    rf"{BLOCK}proj\.1\.": f"{OURS}shortcut.norm.",
    rf"{BLOCK}f\.se\.(fc[12])\.": rf"{OURS}branch.squeeze.\3.",
    rf"{BLOCK}f\.([abc])\.0\.": rf"{OURS}branch.\3.conv.",
    rf"{BLOCK}f\.([abc])\.1\.": rf"{OURS}branch.\3.norm.",
    r"fc\.": "head.linear.",
}


def convert(state: State, bgr: bool | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`.

    Args:
        state: of the checkpoint.
        bgr: the network sees blue, green, red, as OpenCV reads them: its first kernel is turned around. pycls' do unless given.
        flags: of no use here.
    """
    from unveil.recipes.regnet import SIZES, Shape, quantised

    given = Reader(state)
    pycls = "stem.conv.weight" in given
    ours, depths = _residual.placed(given, PYCLS if pycls else TORCHVISION)
    stem, depths = ours["encoder.stem.conv.weight"], depths["encoder."]
    ends = [sum(depths[: i + 1]) - 1 for i in range(len(depths))]
    middles = [ours[f"encoder.blocks.{end}.branch.b.conv.weight"] for end in ends]
    squeeze = "encoder.blocks.0.branch.squeeze.fc1.weight" in ours
    groups = tuple(weight.shape[1] for weight in middles)
    shape = Shape(tuple(map(len, middles)), depths, groups, squeeze)
    size = next((name for name, line in SIZES.items() if quantised(line) == shape), None)
    if size is None:
        stages = ",".join(f"{depth}x{width}" for depth, width in zip(depths, shape.widths, strict=True))
        size = f"{'Y' if squeeze else 'X'}:{stages}:{max(groups)}"
    flags = {"size": size, "stem_width": len(stem), **_residual.classes(ours)}
    notes: list[str] = []
    if pycls if bgr is None else bgr:
        ours["encoder.stem.conv.weight"] = _pycls.turned(stem, notes)
    return Converted("regnet", flags, ours, _residual.absent(ours), given.unused, notes)
