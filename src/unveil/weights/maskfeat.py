"""facebookresearch/SlowFast: `MaskMViT` (pre-training) and the mean-pooled `MViT` that it is fine-tuned as; ViT and MViTv2."""

from __future__ import annotations

import math
from typing import Any

import torch

from unveil.errors import UserError
from unveil.weights import _mvit, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "Apache-2.0 (facebookresearch/SlowFast)"

#: The norm before the prediction is the encoder's last here: what is pooled or probed has it, too.
MASKED = {
    "mask_token": "encoder.mask_token",
    "pred_head.transforms.0.0.": "encoder.norm.",
    "pred_head.projections.0.": "decoder.head.",
}
#: That of a classifier acts on the pooled tokens.
CLASSIFIER = {"norm.": "encoder.fc_norm.", "head.projection.": "head.linear."}
VIT = {"patch_embed.proj.bias": "encoder.embed.bias", "blocks.": "encoder.blocks."}
#: Kernels and windows that never change; here they are part of the target.
FIXED = "hogs."
#: Of the histograms of a cell: nine bins of three colours; and its side in pixels.
VALUES, CELL = 27, 8


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`.

    Raises:
        UserError: it predicts pixels, or from several layers; it is of another system.
    """
    state = {name: value for name, value in state.items() if not name.startswith(FIXED)}
    masked = "mask_token" in state
    own = MASKED if masked else CLASSIFIER
    given = Reader({name: value for name, value in state.items() if name.startswith(tuple(own))})
    rest = {name: value for name, value in state.items() if name not in given}
    ours = given.renamed(own)
    found = _of_mvitv2(rest) if "blocks.0.attn.rel_pos_w" in state else _of_vit(rest, num_heads)
    absent = () if masked or "head.projection.weight" in state else ("head.",)
    if masked:
        found.flags.update(_sides(state, found.flags))
        return found._replace(recipe="maskfeat", state=found.state | ours)
    if "head.projection.weight" in state:
        found.flags["num_classes"] = len(state["head.projection.weight"])
    return found._replace(recipe="maskfeat:finetune", state=found.state | ours, absent=absent)


def _sides(state: State, flags: dict[str, Any]) -> dict[str, int]:
    """Sides of patches and of their cells; cells are of eight pixels where the embedding does not tell the patch.

    Raises:
        UserError: what is predicted are no histograms of square patches.
    """
    name = "pred_head.projections.0.weight"
    if name not in state:
        raise UserError("These weights have a mask token, but no linear layer that predicts something from one layer.")
    values = len(state[name])
    cells = math.isqrt(values // VALUES)
    patch = flags.get("patch", CELL * cells)
    if cells**2 * VALUES != values or patch % cells:
        raise UserError(
            f"The checkpoint predicts {values} values for each patch: no histograms of nine bins and three colours."
        )
    return {"patch": patch, "cell": patch // cells}


def _of_mvitv2(state: State) -> Converted:
    found = _mvit.convert("mvitv2", state)
    if found.flags.pop("widen") != "mlp":
        raise UserError("This MViTv2 widens in the attention; MaskFeat's in the perceptron. Use --recipe mvitv2.")
    return found._replace(flags={"encoder": "mvitv2", **found.flags}, notes=())


def _of_vit(state: State, num_heads: int | None) -> Converted:
    given = Reader(state)
    weight = given["patch_embed.proj.weight"]
    *length, patch, _ = _vit.patch_size(weight, weight.ndim - 2)
    if length:
        raise UserError(
            "The checkpoint's ViT is one of clips; MaskFeat's was published for images. MAE's is --recipe mae_st."
        )
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "blocks."), num_heads)
    table = given["pos_embed"]
    crop = _vit.side(table.shape[1] - 1, patch)
    ours = given.renamed(VIT)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    ours["encoder.class_token"] = given["cls_token"] + table[:, :1]
    ours["encoder.positions.table"] = table[0, 1:]
    ours["encoder.positions.native"] = torch.tensor([crop // patch] * 2)
    found = {"encoder": "vit", "size": size, "patch": patch, "crop": crop}
    return Converted("maskfeat", found, ours, unused=given.unused, notes=notes)
