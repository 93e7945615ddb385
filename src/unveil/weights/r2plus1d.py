"""torchvision's video networks (`r2plus1d_18`, `mc3_18`, `r3d_18`), and PyTorchVideo's R(2+1)D."""

from __future__ import annotations

from typing import Any

from unveil.errors import UserError
from unveil.weights import _pytorchvideo_clips, _residual
from unveil.weights._converted import Converted, Reader, State

LICENCE = "BSD-3-Clause (torchvision); PyTorchVideo's: Apache-2.0"

BLOCK = r"layer(\d)\.(\d+)\."
OURS = r"encoder.blocks.<\1,\2>."


def rules(factorised: bool) -> dict[str, str]:
    """torchvision's names → ours."""
    found = {rf"{BLOCK}downsample\.0\.": f"{OURS}shortcut.conv.", rf"{BLOCK}downsample\.1\.": f"{OURS}shortcut.norm."}
    for number, step in enumerate("ab", start=1):
        if factorised:
            found[rf"{BLOCK}conv{number}\.0\.0\."] = f"{OURS}branch.{step}.conv.0.conv."
            found[rf"{BLOCK}conv{number}\.0\.1\."] = f"{OURS}branch.{step}.conv.0.norm."
            found[rf"{BLOCK}conv{number}\.0\.3\."] = f"{OURS}branch.{step}.conv.1."
        found[rf"{BLOCK}conv{number}\.0\."] = f"{OURS}branch.{step}.conv."
        found[rf"{BLOCK}conv{number}\.1\."] = f"{OURS}branch.{step}.norm."
    stem = ("conv.0.conv", "conv.0.norm", "", "conv.1", "norm") if factorised else ("conv", "norm")
    return found | {rf"stem\.{i}\.": f"encoder.stem.{ours}." for i, ours in enumerate(stem)} | {r"fc\.": "head.linear."}


def convert(state: State, **hints: Any) -> Converted:
    """See `unveil.weights.convert`."""
    if _pytorchvideo_clips.fits(state):
        return _pytorchvideo_clips.convert(state, "r2plus1d", **hints)
    given = Reader(state)
    factorised = "stem.3.weight" in given
    ours, depths = _residual.placed(given, rules(factorised))
    if given["stem.0.weight"].ndim != 5 or depths.get("encoder.") != (2, 2, 2, 2):
        raise UserError(
            "These are not the weights of r2plus1d: torchvision's have four stages of two blocks, over clips."
        )
    timed = given["layer4.1.conv2.0.weight"].shape[2] > 1 if not factorised else False
    size = "18" if factorised else "R3D-18" if timed else "MC3-18"
    flags = {"size": size, **_residual.classes(ours)}
    return Converted("r2plus1d", flags, ours, _residual.absent(ours), given.unused)
