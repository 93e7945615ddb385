"""What the families that descend from timm's ViT have in common: names of blocks, layout of patch embeddings, sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from unveil.encoders import SIZES, Dimensions
from unveil.errors import UserError
from unveil.weights._converted import State

#: Values of a head's width where no published size says it.
HEAD_WIDTH = 64


def embedding(weight: Tensor) -> Tensor:
    """A convolution's patch embedding [D, C, *S] → our linear one [D, P], channel fastest."""
    return weight.movedim(1, -1).flatten(1)


def convolution(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """The inverse of `embedding`: [D, P] → [D, C, *size]."""
    return weight.unflatten(1, (*size, -1)).movedim(-1, 1)


def patch_size(weight: Tensor, axes: int) -> tuple[int, ...]:
    """Extent of a patch along so many axes, from a convolution's weight [D, C, *S].

    Raises:
        UserError: the weight is of another number of axes.
    """
    kinds = {4: "images", 5: "clips"}
    if weight.ndim != axes + 2:
        found = kinds.get(weight.ndim, f"signals of {weight.ndim - 2} axes")
        raise UserError(f"The checkpoint's patches are of {found}, this system's of {kinds[axes + 2]}.")
    return tuple(weight.shape[2:])


def fuse_qkv(state: Mapping[str, Tensor]) -> State:
    """Separate linears `….attn.q`, `.k`, `.v` → one `….attn.qkv`."""
    fused = {name: value for name, value in state.items() if not re.search(r"\.attn\.[qkv]\.(weight|bias)$", name)}
    for name in state:
        if match := re.fullmatch(r"(.*\.attn\.)q\.(weight|bias)", name):
            stem, kind = match.groups()
            fused[f"{stem}qkv.{kind}"] = torch.cat([state[f"{stem}{part}.{kind}"] for part in "qkv"])
    return fused


def fold_layer_scale(state: Mapping[str, Tensor]) -> State:
    """Multiply `gamma_1`, `gamma_2` (timm: `ls1.gamma`, `ls2.gamma`) into the linear layers whose result they scale."""
    scale = re.compile(r"(.*\.)(?:gamma_|ls)([12])(?:\.gamma)?")
    folded = {name: value for name, value in state.items() if not scale.fullmatch(name)}
    for name, gamma in state.items():
        if match := scale.fullmatch(name):
            layer = match[1] + ("attn.proj" if match[2] == "1" else "mlp.fc2")
            folded[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
            folded[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    return folded


def depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks whose names begin with `prefix` and a number.

    Raises:
        UserError: none does.
    """
    numbers = {int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    if not numbers:
        raise UserError(f"These are not the weights of this system: no parameter's name begins with {prefix!r}.")
    return max(numbers) + 1


def size_of(width: int, depth: int, num_heads: int | None) -> tuple[str, list[str]]:
    """The size's name, or its numbers, and a note where the number of heads was assumed.

    Heads are the hint's, those of the published size of that width and depth or of that width, or one for 64 channels.

    Raises:
        UserError: nothing tells the number of heads.
    """
    notes = []
    if num_heads is None:
        same = [size for size in SIZES.values() if size.width == width]
        heads = next((size.heads for size in same if size.depth == depth), same[0].heads if same else None)
        if heads is None:
            if width % HEAD_WIDTH:
                raise UserError(f"No published size has a width of {width}: give num_heads (--num-heads).")
            heads = width // HEAD_WIDTH
            notes.append(f"{heads} heads assumed, one for {HEAD_WIDTH} of {width} channels; --num-heads says otherwise")
    else:
        heads = num_heads
    found = Dimensions(width, depth, heads)
    named = next((name for name, size in SIZES.items() if size == found), None)
    return named or "x".join(map(str, found)), notes


def side(num: int, patch: int) -> int:
    """Side in pixels of a square image of `num` patches.

    Raises:
        UserError: they make no square.
    """
    root = math.isqrt(num)
    if root * root != num:
        raise UserError(
            f"The checkpoint has {num} positions, which make no square image: it cannot be read as this system."
        )
    return root * patch


def head(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of classes, where there is a head."""
    return {"num_classes": len(state["head.weight"])} if "head.weight" in state else {}
