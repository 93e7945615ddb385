"""OpenAI's CLIP (its TorchScript archives and their state dicts), OpenCLIP's, transformers' `CLIPModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unveil.encoders import DEPTHS, SIZES, Dimensions, ViT
from unveil.errors import UserError
from unveil.recipes.clip import ACTS, Towers
from unveil.recipes.clip import SIZES as TOWERS
from unveil.tokens import Patchify, Positions
from unveil.weights import _residual, _transformers, _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "MIT (OpenAI)"

BLOCK = {
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
RULES = {
    **{rf"visual\.transformer\.resblocks\.(\d+)\.{re.escape(t)}": rf"image.blocks.\1.{o}" for t, o in BLOCK.items()},
    **{rf"transformer\.resblocks\.(\d+)\.{re.escape(t)}": rf"text.blocks.\1.{o}" for t, o in BLOCK.items()},
    r"visual\.ln_pre\.": "image.norm_first.",
    r"visual\.ln_post\.": "image.norm.",
    r"token_embedding\.": "text.embed.",
    r"ln_final\.": "text.norm.",
    r"visual\.attnpool\.c_proj\.": "projections.image.",
    **{rf"visual\.conv{n}\.": f"image.stem.{n - 1}.conv." for n in (1, 2, 3)},
    **{rf"visual\.bn{n}\.": f"image.stem.{n - 1}.norm." for n in (1, 2, 3)},
    **{
        rf"visual\.layer(\d)\.(\d+)\.{theirs}{number}\.": rf"image.blocks.<\1,\2>.branch.{step}.{ours}."
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
        for number, step in enumerate("abc", start=1)
    },
    r"visual\.layer(\d)\.(\d+)\.downsample\.0\.": r"image.blocks.<\1,\2>.shortcut.projected.conv.",
    r"visual\.layer(\d)\.(\d+)\.downsample\.1\.": r"image.blocks.<\1,\2>.shortcut.projected.norm.",
}
#: What the archives keep among their tensors, and shapes say as well.
SETTINGS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "output_dim")
#: transformers' names → OpenAI's; inside a block, too.
TRANSFORMERS = {
    r"text_model\.embeddings\.token_embedding\.weight$": "token_embedding.weight",
    r"text_model\.embeddings\.position_embedding\.weight$": "positional_embedding",
    r"text_model\.final_layer_norm\.": "ln_final.",
    r"vision_model\.embeddings\.class_embedding$": "visual.class_embedding",
    r"vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"vision_model\.embeddings\.position_embedding\.weight$": "visual.positional_embedding",
    r"vision_model\.pre_layrnorm\.": "visual.ln_pre.",
    r"vision_model\.post_layernorm\.": "visual.ln_post.",
    r"text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
}
INSIDE = {
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}


def convert(
    state: State, num_heads: int | None = None, text_num_heads: int | None = None, act: str | None = None, **flags: Any
) -> Converted:
    """See `unveil.weights.convert`. `num_heads` are the image tower's, `text_num_heads` the text's: one for 64 channels, unless
    a published size says otherwise. The activation stands in no tensor: OpenAI's QuickGELU, for H/14 OpenCLIP's GELU.

    Raises:
        UserError: it is of another system.
    """
    halves = (torch.float16, torch.bfloat16)  # sums below would be rounded
    state = {name: value.float() if value.dtype in halves else value for name, value in state.items()}
    given = Reader(_from_transformers(_open_clip(state)))
    for name in given:
        if name.rpartition(".")[2] in SETTINGS:
            given[name]
    found = _residual.placed(given, RULES)
    ours = found.state
    width = given["text_projection"].shape[1]
    words = given["positional_embedding"]
    ours |= {
        "text.positions.table": words,
        "text.positions.native": torch.tensor([len(words)]),
        "projections.text.weight": given["text_projection"].T,
        "logit_scale": given["logit_scale"].reshape(1),
    }
    if "text.embed.weight" not in ours:
        raise UserError("These are not the weights of clip: it has no embedding of words.")
    text = Dimensions(
        words.shape[1], _vit.depth(ours, "text.blocks."), text_num_heads or max(1, words.shape[1] // _vit.HEAD_WIDTH)
    )
    tower = _transformer(given, ours, num_heads) if "visual.class_embedding" in given else _resnet(given, ours, found)
    flags_of_tower, image = tower
    notes = []
    if act is None:
        act = "gelu" if flags_of_tower.get("size") == "H" else "quick_gelu"
        notes.append(f"the activation is taken to be {act}; --act says otherwise (OpenCLIP's own weights have gelu)")
    sizes = Towers(image, "x".join(map(str, text)), flags_of_tower.pop("patch", None), width)
    name = next((name for name, size in TOWERS.items() if _numbers(size) == sizes), None)
    size: dict[str, Any] = {"size": name} if name else {"size": sizes.image, "text_size": sizes.text, "width": width}
    if not name and sizes.patch:
        size["patch"] = sizes.patch
    found_flags = {**size, **{k: v for k, v in flags_of_tower.items() if k != "size"}}
    found_flags |= {"context": len(words), "vocabulary": len(ours["text.embed.weight"]), "act": act}
    return Converted("clip", found_flags, ours, (), given.unused, notes)


def _numbers(size: Towers) -> Towers:
    """A published size, its towers in numbers."""
    return size._replace(image=_in_numbers(size.image), text=_in_numbers(size.text))


def _in_numbers(size: str) -> str:
    return "x".join(map(str, SIZES[size])) if size in SIZES else size


def _transformer(given: Reader, ours: State, num_heads: int | None) -> tuple[dict[str, Any], str]:
    weight, table = given["visual.conv1.weight"], given["visual.positional_embedding"]
    ours.pop("image.stem.0.conv.weight")
    patch = _vit.patch_size(weight, 2)[0]
    crop = _vit.side(len(table) - 1, patch)
    depth = _vit.depth(ours, "image.blocks.")
    heads = num_heads or (16 if len(weight) == SIZES["H"].width else max(1, len(weight) // _vit.HEAD_WIDTH))
    name, _ = _vit.size_of(len(weight), depth, heads)
    dims = SIZES[name] if name in SIZES else Dimensions(*map(int, name.split("x")))
    ours |= {
        "image.embed.weight": _vit.embedding(weight),
        "image.class_token": (given["visual.class_embedding"] + table[0])[None, None],
        "image.positions.table": table[1:],
        "image.positions.native": torch.tensor([crop // patch] * 2),
        "projections.image.weight": given["visual.proj"].T,
    }
    return {"size": name, "patch": patch, "crop": crop}, "x".join(map(str, dims))


def _resnet(given: Reader, ours: State, found: _residual.Placed) -> tuple[dict[str, Any], str]:
    pool = "visual.attnpool."
    table = given[f"{pool}positional_embedding"]
    side = math.isqrt(len(table) - 1)
    ours |= {
        "image.pooling.position_of_mean": table[:1][None],
        "image.pooling.positions.table": table[1:],
        "image.pooling.positions.native": torch.tensor([side, side]),
    }
    for kind in ("weight", "bias"):
        ours[f"image.pooling.qkv.{kind}"] = torch.cat([given[f"{pool}{part}_proj.{kind}"] for part in "qkv"])
    depths = found.depths["image."]
    layers = next((number for number, blocks in DEPTHS.items() if blocks == depths and number >= 50), None)
    size = f"RN{layers}" if layers else f"RN{','.join(map(str, depths))}"
    return {"size": size, "crop": 32 * side, "stem": len(given["visual.conv3.weight"])}, size


def _open_clip(state: Mapping[str, Tensor]) -> State:
    """OpenCLIP's names; newer ones have the text's tower under a name of its own."""
    if "text.token_embedding.weight" not in state:
        return dict(state)
    kept = {name: value for name, value in state.items() if name != "text.attn_mask"}
    return {name.removeprefix("text."): value for name, value in kept.items()}


def _from_transformers(state: Mapping[str, Tensor]) -> State:
    if "text_model.embeddings.token_embedding.weight" not in state:
        return dict(state)
    named: State = {}
    for name, value in state.items():
        if name.endswith(".position_ids"):
            continue
        for pattern, theirs in TRANSFORMERS.items():
            name = re.sub(f"^{pattern}", theirs, name)
        for old, new in INSIDE.items():
            name = name.replace(old, new)
        named[name] = value
    for name in [name for name in named if ".self_attn.q_proj." in name]:
        parts = [named.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        named[name.replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(parts)
    named["visual.proj"] = named.pop("visual_projection.weight").T
    named["text_projection"] = named.pop("text_projection.weight").T
    return named


def revert(objective: nn.Module, encoder_only: bool) -> _transformers.Reverted:
    """Two towers of transformers as transformers' `CLIPModel`.

    Raises:
        UserError: they cannot be one.
    """
    image: Any = objective.get_submodule("image")
    text: Any = objective.get_submodule("text")
    wrong = ["only the whole of two towers can be exported (--part whole)"] if encoder_only else []
    wrong += _wrong_image(image)
    if not text.causal or text.pooling != "last":
        wrong.append("its text tower is not causal, or not read at the end of the text")
    if wrong:
        raise UserError(_transformers.refusal(wrong))
    patchify: Patchify = image.patchify
    positions: Positions = image.positions
    acts = {name for name, act in ACTS.items() if isinstance(image.blocks[0].mlp.act, act)}
    own = objective.state_dict()
    theirs: State = {
        "logit_scale": own["logit_scale"].reshape(()),
        "visual_projection.weight": own["projections.image.weight"],
        "text_projection.weight": own["projections.text.weight"],
        "text_model.embeddings.token_embedding.weight": own["text.embed.weight"],
        "text_model.embeddings.position_embedding.weight": own["text.positions.table"],
        "vision_model.embeddings.class_embedding": own["image.class_token"].flatten(),
        "vision_model.embeddings.patch_embedding.weight": _vit.convolution(own["image.embed.weight"], patchify.size),
        "vision_model.embeddings.position_embedding.weight": _transformers.table_with_class(positions)[0],
    }
    for ours, names in (("image.norm_first", "vision_model.pre_layrnorm"), ("image.norm", "vision_model.post_layernorm"),
                        ("text.norm", "text_model.final_layer_norm")):  # fmt: skip
        theirs |= {f"{names}.{kind}": own[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    inside = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1",
              "mlp.fc2": "mlp.fc2"}  # fmt: skip
    for ours, names, depth in (("image", "vision_model", image.depth), ("text", "text_model", text.depth)):
        for number in range(depth):
            block, layer = f"{ours}.blocks.{number}", f"{names}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                theirs |= {f"{layer}.{new}.{kind}": own[f"{block}.{old}.{kind}"] for old, new in inside.items()}
                for part, third in zip("qkv", own[f"{block}.attn.qkv.{kind}"].chunk(3), strict=True):
                    theirs[f"{layer}.self_attn.{part}_proj.{kind}"] = third
    width = len(own["projections.text.weight"])
    vocabulary = len(own["text.embed.weight"])
    shared = {"hidden_act": acts.pop(), "layer_norm_eps": 1e-5, "projection_dim": width}
    config = {
        "model_type": "clip",
        "projection_dim": width,
        "logit_scale_init_value": float(own["logit_scale"]),
        "text_config": {
            **shared, **_sizes(text), "vocab_size": vocabulary, "max_position_embeddings": text.context,
            # The largest id, as in CLIP's own vocabulary; the run's tokenizer may know better.
            "bos_token_id": max(0, vocabulary - 2), "eos_token_id": vocabulary - 1, "pad_token_id": 0,
        },
        "vision_config": {
            **shared, **_sizes(image), "image_size": positions.grid[0] * patchify.size[0],
            "patch_size": patchify.size[0], "num_channels": patchify.channels,
        },
    }  # fmt: skip
    state = {name: value.detach().contiguous() for name, value in theirs.items()}
    return _transformers.Reverted("CLIPModel", config, state)


def _wrong_image(image: nn.Module) -> list[str]:
    """Why an image's tower is none of theirs, as clauses; empty if it is one."""
    if not isinstance(image, ViT) or image.norm_first is None or image.pooling != "class" or image.norm is None:
        return ["its image tower is none with norms before and after its blocks and a class token that is read"]
    if not isinstance(image.embed, nn.Linear) or image.embed.bias is not None:
        return ["its patches' embedding has a bias"]
    if not isinstance(image.positions, Positions) or not isinstance(image.patchify, Patchify):
        return ["its positions or patches are no table and no grid"]
    return [] if image.patchify.stride == image.patchify.size else ["its patches overlap"]


def _sizes(tower: Any) -> dict[str, int]:
    block = tower.blocks[0]
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": block.attn.heads,
        "intermediate_size": block.mlp.fc1.out_features,
    }
