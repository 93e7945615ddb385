"""timm's `VisionTransformer` with a class token (also DeiT and AugReg weights as timm names them), and torchvision's."""

from __future__ import annotations

import re
from typing import Any

import torch

from unveil.errors import UserError
from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

NAMES = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "head.": "head.linear.",
}
#: torchvision's names → timm's. Its perceptrons were called linear_1 and linear_2 before they were a sequence.
TORCHVISION = {
    r"conv_proj\.": "patch_embed.proj.",
    r"class_token$": "cls_token",
    r"encoder\.pos_embedding$": "pos_embed",
    r"encoder\.ln\.": "norm.",
    r"heads\.head\.": "head.",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.": r"blocks.\1.norm\2.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_": r"blocks.\1.attn.qkv.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.": r"blocks.\1.attn.proj.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.": r"blocks.\1.mlp.fc1.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.": r"blocks.\1.mlp.fc2.",
}


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. A checkpoint without a head is an encoder, whose head is as initialised.

    Raises:
        UserError: it is another kind of ViT: mean-pooled (that is MAE's fine-tuning), distilled.
    """
    if "conv_proj.weight" in state:
        state = {_from_torchvision(name): value for name, value in state.items()}
    if "fc_norm.weight" in state:
        raise UserError(
            "This ViT pools the mean of its tokens and then has a norm, as MAE's fine-tuned ones: use --recipe mae."
        )
    if "dist_token" in state:
        raise UserError("This ViT has a distillation token (DeiT, distilled), which the recipe vit has not.")
    given = Reader(_vit.fold_layer_scale(state))
    weight = given["patch_embed.proj.weight"]
    patch = _vit.patch_size(weight, 2)[0]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    table = given["pos_embed"]
    crop = _vit.side(table.shape[1] - 1, patch)
    ours = given.renamed(NAMES)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = given["cls_token"] + table[:, :1]
    ours["encoder.positions.table"] = table[0, 1:]
    ours["encoder.positions.native"] = torch.tensor([crop // patch] * 2)
    found = {"size": size, "patch": patch, "crop": crop, **_vit.head(given)}
    absent = () if "head.weight" in given else ("head.",)
    return Converted("vit", found, ours, absent, given.unused, notes)


def _from_torchvision(name: str) -> str:
    for theirs, timms in TORCHVISION.items():
        renamed, times = re.subn(f"^{theirs}", timms, name)
        if times:
            return renamed
    return name
