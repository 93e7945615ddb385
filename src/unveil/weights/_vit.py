"""What the families that descend from timm's ViT have in common: names of blocks, layout of patch embeddings."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from unveil.encoders import SIZES, Dimensions
from unveil.errors import UserError
from unveil.recipe import Recipe

State = dict[str, Tensor]


def rename(state: State, rules: dict[str, str]) -> State:
    """Rename by prefix, the first rule that fits; names that no rule fits are left out."""
    renamed = {}
    for name, value in state.items():
        for old, new in rules.items():
            if name.startswith(old):
                renamed[new + name.removeprefix(old)] = value
                break
    return renamed


def embedding(weight: Tensor) -> Tensor:
    """A convolution's patch embedding [D, C, *S] → our linear one [D, P], channel fastest."""
    return weight.movedim(1, -1).flatten(1)


def patch_size(weight: Tensor) -> tuple[int, ...]:
    """Extent of a patch, from a convolution's weight [D, C, *S]."""
    return tuple(weight.shape[2:])


def fuse_qkv(state: State) -> State:
    """Separate linears `….attn.q`, `.k`, `.v` → one `….attn.qkv`."""
    fused = {name: value for name, value in state.items() if not re.search(r"\.attn\.[qkv]\.(weight|bias)$", name)}
    for name in state:
        if match := re.fullmatch(r"(.*\.attn\.)q\.(weight|bias)", name):
            stem, kind = match.groups()
            fused[f"{stem}qkv.{kind}"] = torch.cat([state[f"{stem}{part}.{kind}"] for part in "qkv"])
    return fused


def fold_layer_scale(state: State) -> State:
    """Multiply `gamma_1` and `gamma_2` into the linear layers whose result they scale."""
    folded = {name: value for name, value in state.items() if not re.search(r"\.gamma_[12]$", name)}
    for name, gamma in state.items():
        if match := re.fullmatch(r"(.*\.)gamma_([12])", name):
            layer = match[1] + ("attn.proj" if match[2] == "1" else "mlp.fc2")
            folded[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
            folded[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    return folded


def depth(state: State, prefix: str) -> int:
    """Number of blocks whose names begin with `prefix` and a number."""
    numbers = {int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    if not numbers:
        raise UserError(f"These are not the weights of this system: no parameter's name begins with {prefix!r}.")
    return max(numbers) + 1


def dimensions(width: int, depth: int, num_heads: int | None) -> Dimensions:
    """Dimensions, the number of heads from a hint or from the published size of that width."""
    published = {size.width: size.heads for size in SIZES.values()}
    heads = num_heads or published.get(width)
    if heads is None:
        raise UserError(f"No published size has a width of {width}: give num_heads.")
    return Dimensions(width, depth, heads)


def side(num: int, patch: int) -> int:
    """Side in pixels of a square image of `num` patches."""
    root = math.isqrt(num)
    if root * root != num:
        raise UserError(f"{num} positions do not make a square image: give crop.")
    return root * patch


def fill(recipe: Recipe, state: State) -> Recipe:
    """Load a converted state; fixed position tables may be missing, nothing else.

    Raises:
        UserError: parameters are missing or left over.
    """
    missing, unexpected = recipe.objective.load_state_dict(state, strict=False)
    parameters = dict(recipe.objective.named_parameters())
    missing = [name for name in missing if name in parameters]
    if missing or unexpected:
        raise UserError(f"These are not the weights of this system: missing {missing}, left over {unexpected}.")
    return recipe
