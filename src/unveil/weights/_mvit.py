"""MViT and MViTv2 as PySlowFast and facebookresearch/mvit name them; other families are renamed to these first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unveil.encoders import MVIT, MVITV2, Scales
from unveil.errors import UserError
from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

NAMES = {
    "patch_embed.proj.": "encoder.stem.conv.",
    "norm.": "encoder.norm.",
    "head.projection.": "head.linear.",
}
#: Inside a block, where a name is not the same.
BLOCK = {
    r"attn\.pool_([qkv])\.weight": r"attn.pool_\1.conv.weight",
    r"attn\.norm_([qkv])\.(weight|bias)": r"attn.pool_\1.norm.\2",
    r"attn\.rel_pos_w": "attn.positions.tables.0",
    r"attn\.rel_pos_h": "attn.positions.tables.1",
    r"attn\.rel_pos_t": "attn.positions.tables.2",
}
#: Pixels and frames of a place on the stem's grid.
PATCH, TUBELET = 4, 2


def convert(recipe: str, state: Mapping[str, Tensor]) -> Converted:
    """A state in PySlowFast's names → ours.

    Args:
        recipe: "mvit" (absolute positions) or "mvitv2" (relative ones).
        state: with `patch_embed.proj`, `blocks.N.attn.qkv` …

    Raises:
        UserError: it is the other system's, or has positions that neither has.
    """
    given = Reader(state)
    relative = "blocks.0.attn.rel_pos_w" in given
    if relative != (recipe == "mvitv2"):
        kind = "relative" if relative else "absolute"
        raise UserError(f"These weights have {kind} positions: use --recipe {'mvitv2' if relative else 'mvit'}.")
    stem = given["patch_embed.proj.weight"]
    axes = stem.ndim - 2
    if tuple(stem.shape[2:]) != (3,) * (axes - 2) + (7, 7):
        raise UserError(
            f"The checkpoint's patches are of {tuple(stem.shape[2:])}; a multiscale transformer's of 3 × 7 × 7."
        )
    size = _scales(given)
    named = MVITV2 if recipe == "mvitv2" else MVIT
    found: dict[str, Any] = {"size": next((name for name, known in named.items() if known == size), str(size))}
    ours = given.renamed(NAMES)
    for name in given:
        if match := re.fullmatch(r"(blocks\.\d+\.)(.*)", name):
            ours[f"encoder.{match[1]}{_in_block(match[2])}"] = _flat(given[name], axes)
    if "cls_token" in given:
        ours["encoder.class_token"] = given["cls_token"]
    if relative:
        grown = [width for width in _widths(given) if width[0] != width[1]]
        found["widen"] = "mlp" if grown else "attention"
        found["crop"] = PATCH * (len(given["blocks.0.attn.rel_pos_w"]) + 1) // 2
        if axes == 3:
            found["frames"] = TUBELET * (len(given["blocks.0.attn.rel_pos_t"]) + 1) // 2
    else:
        found["kernel"] = 3 if given["blocks.0.attn.pool_k.weight"].shape[-1] == 3 else 0
        found |= _separable(given, ours) if axes == 3 else _joint(given, ours)
    if "head.projection.weight" in given:
        found["num_classes"] = len(given["head.projection.weight"])
    absent = () if "num_classes" in found else ("head.",)
    notes = ["the strides of keys and values are the published ones; --kv-stride says otherwise"]
    return Converted(recipe, found, ours, absent, given.unused, notes)


def _in_block(name: str) -> str:
    for theirs, mine in BLOCK.items():
        if match := re.fullmatch(theirs, name):
            return match.expand(mine)
    return name


def _flat(weight: Tensor, axes: int) -> Tensor:
    """PySlowFast pools images with kernels of three axes, the first of length 1."""
    return weight.squeeze(2) if weight.ndim == 5 and axes == 2 and weight.shape[2] == 1 else weight


def _widths(given: Reader) -> list[tuple[int, int]]:
    """Width between the two halves of each block, and after it."""
    return [
        (given[f"blocks.{i}.mlp.fc1.weight"].shape[1], len(given[f"blocks.{i}.mlp.fc2.weight"]))
        for i in range(_vit.depth(given, "blocks."))
    ]


def _scales(given: Reader) -> Scales:
    """Heads have one width throughout, that of their norms; a stage begins where there are twice as many.

    Raises:
        UserError: they do not grow so.
    """
    head = len(given["blocks.0.attn.norm_k.weight"])
    widths = [len(given[f"blocks.{i}.attn.proj.weight"]) for i in range(_vit.depth(given, "blocks."))]
    heads = [width // head for width in widths]
    stages = sorted(set(heads))
    doubled = stages == [stages[0] * 2**stage for stage in range(len(stages))]
    if not doubled or heads != sorted(heads) or any(width % head for width in widths):
        raise UserError(
            f"The checkpoint's blocks attend over {widths} channels in heads of {head}: they do not double from stage to stage."
        )
    return Scales(len(given["patch_embed.proj.weight"]), heads[0], tuple(map(heads.count, stages)))


def _separable(given: Reader, ours: State) -> dict[str, int]:
    """A table for space and one for time; the class token's own position becomes part of it."""
    if "pos_embed" in given:
        raise UserError("This MViT has one table of positions for time and space, which the recipe mvit has not.")
    space, time = given["pos_embed_spatial"][0], given["pos_embed_temporal"][0]
    row = _vit.side(len(space), 1)
    ours["encoder.positions.parts.0.table"], ours["encoder.positions.parts.1.table"] = space, time
    ours["encoder.positions.parts.0.native"] = torch.tensor([row, row])
    ours["encoder.positions.parts.1.native"] = torch.tensor([len(time)])
    ours["encoder.class_token"] = ours["encoder.class_token"] + given["pos_embed_class"]
    return {"crop": PATCH * row, "frames": TUBELET * len(time)}


def _joint(given: Reader, ours: State) -> dict[str, int]:
    """One table, whose first row is the class token's."""
    table = given["pos_embed"]
    row = _vit.side(table.shape[1] - 1, 1)
    ours["encoder.positions.table"] = table[0, 1:]
    ours["encoder.positions.native"] = torch.tensor([row, row])
    ours["encoder.class_token"] = ours["encoder.class_token"] + table[:, :1]
    return {"crop": PATCH * row}


#: torchvision's names → PySlowFast's.
TORCHVISION = {
    r"conv_proj\.": "patch_embed.proj.",
    r"pos_encoding\.class_token$": "cls_token",
    r"pos_encoding\.(spatial|temporal|class)_pos$": r"pos_embed_\1",
    r"(blocks\.\d+\.)attn\.project\.0\.": r"\1attn.proj.",
    r"(blocks\.\d+\.)attn\.pool_([qkv])\.pool\.": r"\1attn.pool_\2.",
    r"(blocks\.\d+\.)attn\.pool_([qkv])\.norm_act\.0\.": r"\1attn.norm_\2.",
    r"(blocks\.\d+\.)mlp\.0\.": r"\1mlp.fc1.",
    r"(blocks\.\d+\.)mlp\.3\.": r"\1mlp.fc2.",
    r"(blocks\.\d+\.)project\.": r"\1proj.",
    r"head\.1\.": "head.projection.",
}


def from_torchvision(state: Mapping[str, Tensor]) -> State:
    """torchvision's `mvit_v1_b` and `mvit_v2_s` in PySlowFast's names; other states as they are."""
    if "conv_proj.weight" not in state:
        return dict(state)
    renamed = {}
    for name, value in state.items():
        for theirs, mine in TORCHVISION.items():
            name, times = re.subn(f"^{theirs}", mine, name)
            if times:
                break
        tables = name.startswith(("cls_token", "pos_embed"))
        renamed[name] = value.reshape(1, -1, value.shape[-1]) if tables else value
    return renamed
