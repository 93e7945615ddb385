"""PyTorchVideo's multiscale vision transformers: separate queries, keys and values, poolings under two names each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unveil.errors import UserError
from unveil.weights import _mvit, _vit
from unveil.weights._converted import Converted, State

#: PyTorchVideo's names → PySlowFast's.
NAMES = {
    "patch_embed.patch_model.": "patch_embed.proj.",
    "cls_positional_encoding.": "",
    "norm_embed.": "norm.",
    "head.proj.": "head.projection.",
}
ALIAS = re.compile(r"(.*\.attn\.)_attention_pool_([qkv])\.(pool|norm)\.(weight|bias)")


def fits(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are these."""
    return "patch_embed.patch_model.weight" in state


def convert(state: Mapping[str, Tensor], **flags: Any) -> Converted:
    """See `unveil.weights.convert`.

    Raises:
        UserError: two names of one tensor hold different values.
    """
    plain: State = {}
    for name, value in state.items():
        if match := ALIAS.fullmatch(name):
            first = f"{match[1]}{match[3]}_{match[2]}.{match[4]}"
            if first in state and not torch.equal(state[first], value):
                raise UserError(f"{first} and {name} are one tensor in PyTorchVideo, and differ in this file.")
            name = first
            if first in state:
                continue
        for theirs, mine in NAMES.items():
            if name.startswith(theirs):
                name = mine + name.removeprefix(theirs)
                break
        plain[name] = value
    return _mvit.convert("mvit", _vit.fuse_qkv(plain))
