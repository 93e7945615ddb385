"""Jinec98/MAE3D: `MAE3D` (pre-training) and `MAE3D_cls` (the graph network, fine-tuned)."""

from __future__ import annotations

import math
import re
from typing import Any

from unveil.errors import UserError
from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "none given (Jinec98/MAE3D)"

#: Of the published classes, where no tensor tells it.
HEADS, HEAD_WIDTH, GROUP = 8, 64, 64
LAYERS = re.compile(r"(encoder|decoder)\.transformer\.layers\.(\d+)\.([01])\.(norm|net)\.(.+)")
#: Of a layer's two branches.
BRANCH = {
    ("0", "norm"): ("norm1.", {"weight": "weight", "bias": "bias"}),
    ("0", "net"): ("attn.", {"to_qkv.weight": "qkv.weight", "out.0.weight": "proj.weight", "out.0.bias": "proj.bias"}),
    ("1", "norm"): ("norm2.", {"weight": "weight", "bias": "bias"}),
    ("1", "net"): (
        "mlp.",
        {
            "net.0.weight": "fc1.weight",
            "net.0.bias": "fc1.bias",
            "net.3.weight": "fc2.weight",
            "net.3.bias": "fc2.bias",
        },
    ),
}
POSITIONS = {"0.": "fc1.", "2.": "fc2."}
CENTRES = {"mlp_center.": "decoder.centres."}
FOLDING = {
    "mlp_folding.0.": "decoder.unfold.",
    "mlp_folding.1.": "decoder.fold.0.",
    "mlp_folding.3.": "decoder.fold.2.",
    "mlp_folding.4.": "decoder.fold.3.",
    "mlp_folding.6.": "decoder.fold.5.",
}
HEAD = {
    "head_projection.linear1.": "head.layers.0.",
    "head_projection.bn6.": "head.layers.1.",
    "head_projection.linear2.": "head.layers.4.",
    "head_projection.bn7.": "head.layers.5.",
    "head_projection.linear3.": "head.linear.",
}


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. The number of points is that of the centres, times 64 unless `group` says otherwise."""
    given = Reader(state)
    if "patch_embed.conv1.0.weight" in given:
        ours = _graph(given, "patch_embed.") | given.renamed(HEAD)
        width = len(given["patch_embed.conv5.0.weight"])
        found = {"size": _size(width, 6, HEADS), "num_classes": len(given["head_projection.linear3.weight"])}
        return Converted("mae3d:finetune", found, ours, unused=given.unused)
    ours = _graph(given, "encoder.patch_embed.") | _blocks(given)
    for part, name in (("encoder", "encoder"), ("decoder", "decoder.trunk")):
        ours[f"{name}.class_token"] = given[f"{part}.cls_token"]
        ours[f"{name}.class_position"] = given[f"cls_token_{part}"]
        rules = {f"pos_embed_{part}.{old}": f"{name}.positions.{new}" for old, new in POSITIONS.items()}
        ours |= given.renamed(rules)
    ours["decoder.trunk.mask_token"] = given["token_init"][None, None]
    ours["decoder.trunk.embed.weight"] = given["encoder_to_decoder.weight"]
    ours |= given.renamed(CENTRES)
    ours |= {name: _linear(name, value) for name, value in given.renamed(FOLDING).items()}
    width, depth = ours["encoder.class_token"].shape[-1], _vit.depth(given, "encoder.transformer.layers.")
    inner = len(ours["encoder.blocks.0.attn.qkv.weight"]) // 3
    heads = HEADS if num_heads is None else num_heads
    if inner % heads:
        raise UserError(f"--num-heads {heads}: they do not divide queries of {inner} channels.")
    groups = len(ours["decoder.centres.6.weight"]) // 3
    found = {
        "size": _size(width, depth, heads),
        "points": groups * int(flags.get("group", GROUP)),
        "decoder_width": ours["decoder.trunk.class_token"].shape[-1],
        "decoder_depth": _vit.depth(given, "decoder.transformer.layers."),
        "head_width": inner // heads,
        "mlp_width": len(ours["encoder.blocks.0.mlp.fc1.weight"]),
    }
    return Converted("mae3d", found, ours, unused=given.unused)


def _size(width: int, depth: int, heads: int) -> str:
    from unveil.recipes.mae3d import SIZES

    named = [name for name, size in SIZES.items() if size == (width, depth, heads)]
    return named[0] if named else f"{width}x{depth}x{heads}"


def _graph(given: Reader, prefix: str) -> State:
    """The graph network. Each norm is there under two names, its own and its place in a sequence."""
    ours: State = {}
    for name in given:
        if match := re.fullmatch(re.escape(prefix) + r"conv(\d)\.([01])\.(\w+)", name):
            number, part, rest = int(match[1]), ("linear", "norm")[int(match[2])], match[3]
            where = "" if number == 5 else f"blocks.{number - 1}."
            ours[f"encoder.embed.{where}{part}.{rest}"] = _linear(name, given[name])
        elif re.fullmatch(re.escape(prefix) + r"bn\d\.\w+", name):
            given[name]
    return ours


def _blocks(given: Reader) -> State:
    ours: State = {}
    for name in given:
        if match := LAYERS.fullmatch(name):
            part, number, branch, kind, rest = match.groups()
            stem, names = BRANCH[branch, kind]
            where = "encoder" if part == "encoder" else "decoder.trunk"
            ours[f"{where}.blocks.{number}.{stem}{names[rest]}"] = given[name]
    return ours


def _linear(name: str, value: Any) -> Any:
    """A convolution of one point is a linear layer."""
    return value.flatten(1) if value.ndim > 2 and math.prod(value.shape[2:]) == 1 else value
