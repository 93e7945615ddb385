"""timm's `VisionTransformer` with a class token (also DeiT and AugReg weights as timm names them), torchvision's, transformers'."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from unveil.errors import UserError
from unveil.weights import _transformers, _vit
from unveil.weights._converted import Converted, Reader, State

NAMES = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "head.": "head.linear.",
}
#: timm's names → those of transformers' `ViTForImageClassification`.
TRANSFORMERS = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.": "vit.embeddings.patch_embeddings.projection.",
    "blocks.": "vit.encoder.layer.",
    "norm.": "vit.layernorm.",
    "head.": "classifier.",
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
    state = _transformers.published(state, TRANSFORMERS)
    pooler = [name for name in state if name.startswith("vit.pooler.")]
    state = {name: value for name, value in state.items() if name not in pooler}
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
    if pooler:
        notes.append("transformers' pooler (a layer on the class token) has no place here and is left out")
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


def revert(objective: nn.Module, encoder_only: bool) -> _transformers.Reverted:
    """An image classifier by class token, or its encoder, as transformers' `ViTForImageClassification` or `ViTModel`.

    Raises:
        UserError: it cannot be one.
    """
    encoder = _transformers.checked(
        objective.get_submodule("encoder"), "all", ("learned", "sincos", "flat"), class_token=True
    )
    wrong = [] if encoder.norm is not None else ["its last norm acts on what is pooled"]
    if not encoder_only:
        _transformers.linear_head(objective.get_submodule("head"))
        if encoder.pooling != "class":
            wrong.append("it classifies the mean of its tokens, where theirs does the class token (--pool class)")
    if wrong:
        raise UserError(_transformers.refusal(wrong))
    size = encoder.patchify.size  # pyright: ignore[reportAttributeAccessIssue]
    state = _transformers.own_state(objective, NAMES)
    state["patch_embed.proj.weight"] = _vit.convolution(objective.get_parameter("encoder.embed.weight"), size)
    state["cls_token"] = objective.get_parameter("encoder.class_token")
    state["pos_embed"] = _transformers.table_with_class(encoder.get_submodule("positions"))
    config = {"model_type": "vit", **_transformers.sizes(encoder), "qkv_bias": True}
    architecture = "ViTModel" if encoder_only else "ViTForImageClassification"
    return _transformers.Reverted(architecture, config, _transformers.foreign(state, TRANSFORMERS, encoder_only))
