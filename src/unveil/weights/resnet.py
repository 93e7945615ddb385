"""torchvision's `ResNet` (also ResNeXt and wide ones), pycls' and PySlowFast's networks of the same kind for images."""

from __future__ import annotations

from typing import Any

from unveil.encoders import DEPTHS
from unveil.errors import UserError
from unveil.weights import _pycls, _residual
from unveil.weights._converted import Converted, Reader, State

LICENCE = "BSD-3-Clause (torchvision)"

TORCHVISION = {
    r"conv1\.": "encoder.stem.0.conv.",
    r"bn1\.": "encoder.stem.0.norm.",
    r"layer(\d)\.(\d+)\.downsample\.0\.": r"encoder.blocks.<\1,\2>.shortcut.conv.",
    r"layer(\d)\.(\d+)\.downsample\.1\.": r"encoder.blocks.<\1,\2>.shortcut.norm.",
    r"fc\.": "head.linear.",
} | {
    rf"layer(\d)\.(\d+)\.{theirs}{number}\.": rf"encoder.blocks.<\1,\2>.branch.{step}.{ours}."
    for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    for number, step in enumerate("abc", start=1)
}


def convert(state: State, bgr: bool | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. A checkpoint without a classifier is an encoder, whose head is as initialised.

    Args:
        state: of the checkpoint.
        bgr: see `regnet.convert`.
        flags: of no use here.

    Raises:
        UserError: it is a network of another kind.
    """
    given = Reader(state)
    pycls = "stem.conv.weight" in given
    found = _residual.placed(
        given, _pycls.RULES | {r"stem\.(conv|bn)\.": r"encoder.stem.0.\1."} if pycls else TORCHVISION
    )
    ours = _pycls.renamed_norms(found.state)
    stem = ours["encoder.stem.0.conv.weight"]
    if stem.ndim != 4 or stem.shape[-1] != 7:
        raise UserError("These are not the weights of resnet: its first kernel is 7 x 7, over images.")
    depths, width = found.depths["encoder."], len(stem)
    middle = ours["encoder.blocks.0.branch.b.conv.weight"]
    notes: list[str] = []
    if pycls if bgr is None else bgr:
        ours["encoder.stem.0.conv.weight"] = _pycls.turned(stem, notes)
    own = {
        "size": size_of(depths, len(middle), middle.shape[1], width, "encoder.blocks.0.branch.c.conv.weight" in ours)
    }
    own |= {"width": width} | _residual.classes(ours)
    return Converted("resnet", own, ours, _residual.absent(ours), given.unused, notes)


def size_of(depths: tuple[int, ...], inner: int, group: int, width: int, deep: bool) -> str:
    """A size as the recipe `resnet` has them.

    Args:
        depths: blocks of the stages.
        inner, group: width of the first block's second convolution, and of a group there.
        width: of the stem.
        deep: blocks are bottlenecks.
    """
    layers = next((n for n, blocks in DEPTHS.items() if blocks == depths and (n >= 50) == deep), None)
    if not deep:
        return str(layers) if layers else ",".join(map(str, depths)) + "_basic"
    name = str(layers) if layers else ",".join(map(str, depths))
    return name if inner == group == width else f"{name}_{inner // group}x{group}d"
