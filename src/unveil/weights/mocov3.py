"""facebookresearch/moco-v3: `MoCo_ViT` and `MoCo_ResNet`, and the transformer alone with a classifier, of the linear probe."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from unveil.encoders import ConvStem
from unveil.weights import _torchvision, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (facebookresearch/moco-v3)"

HEADS = 12
"""Of ViT-S and ViT-B alike."""
ENCODER = {
    r"patch_embed\.proj\.bias": "encoder.embed.bias",
    r"patch_embed\.proj\.12\.": "encoder.patchify.proj.",
    r"(blocks\.|norm\.)": r"encoder.\1",
}
PERCEPTRONS = {
    "base_encoder.head.": "projector.",
    "momentum_encoder.head.": "momentum.projector.",
    "predictor.": "predictor.",
}
STEM = re.compile(r"patch_embed\.proj\.(\d+)\.")


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`."""
    given = Reader(state)
    if "base_encoder.conv1.weight" in given:
        encoders = {r"base_encoder\.": "", r"momentum_encoder\.": "momentum."}
        ours, found = _torchvision.inside(given, encoders, {r"predictor\.": "predictor."})
        found = {
            "size": f"R{found['size']}",
            "hidden": len(ours["projector.0.weight"]),
            "dim": len(ours["projector.3.weight"]),
        }
        return Converted("mocov3", found, ours, unused=given.unused)
    pretrained = any(name.startswith("base_encoder.") for name in given)
    ours, found = _transformer(given, "base_encoder." if pretrained else "", "", num_heads)
    if not pretrained:
        ours |= given.renamed({"head.": "head.linear."})
        absent = () if "head.weight" in given else ("head.",)
        return Converted("mocov3:finetune", found | _vit.head(given), ours, absent, given.unused)
    ours |= _transformer(given, "momentum_encoder.", "momentum.", num_heads)[0]
    ours |= given.renamed(PERCEPTRONS)
    found |= {"hidden": len(ours["projector.0.weight"]), "dim": len(ours["projector.6.weight"])}
    return Converted("mocov3", found, ours, unused=given.unused)


def _transformer(given: Reader, theirs: str, prefix: str, num_heads: int | None) -> tuple[State, dict[str, Any]]:
    """The transformer under `theirs` as our `prefix + encoder`, and its flags."""
    ours: State = {}
    for name in given:
        inside = name.removeprefix(theirs)
        if not name.startswith(theirs):
            continue
        if found := STEM.match(inside):
            number = int(found[1])
            if number < 12:
                part = "conv" if number % 3 == 0 else "norm"
                ours[STEM.sub(f"{prefix}encoder.patchify.convs.{number // 3}.{part}.", inside)] = given[name]
                continue
        for pattern, rule in ENCODER.items():
            renamed, times = re.subn(f"^{pattern}", rule, inside)
            if times:
                ours[f"{prefix}{renamed}"] = given[name]
                break
    conv_stem = f"{prefix}encoder.patchify.proj.weight" in ours
    token: Tensor = given[f"{theirs}cls_token"]
    width, depth = token.shape[-1], _vit.depth(given, f"{theirs}blocks.") + conv_stem
    heads = num_heads or (HEADS if width in (384, 768) else width // _vit.HEAD_WIDTH)
    flags: dict[str, Any] = {
        "size": "S" if (width, depth, heads) == (384, 12, 12) else _vit.size_of(width, depth, heads)[0]
    }
    if conv_stem:
        patch = ConvStem.STRIDE
        flags["conv_stem"] = True
    else:
        weight = given[f"{theirs}patch_embed.proj.weight"]
        patch = flags["patch"] = _vit.patch_size(weight, 2)[0]
        ours[f"{prefix}encoder.embed.weight"] = _vit.embedding(weight)
    if f"{theirs}pos_embed" in given:
        table = given[f"{theirs}pos_embed"]
        flags["crop"] = _vit.side(table.shape[1] - 1, patch)
        token = token + table[:, :1]
        ours[f"{prefix}encoder.positions.table"] = table[0, 1:]
        ours[f"{prefix}encoder.positions.native"] = torch.tensor([flags["crop"] // patch] * 2)
    ours[f"{prefix}encoder.class_token"] = token
    return ours, flags
