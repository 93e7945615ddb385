"""The names of Hugging Face's transformers ↔ the published ones, both ways; and which of its classes a network can become.

The names are those of the files (as on the Hub), which every version of transformers reads; in memory version 5 has others.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unveil.encoders import ViT
from unveil.errors import UserError
from unveil.layers import Block, RelativePositionBias
from unveil.layers.block import LayerScale
from unveil.tokens import Patchify, Positions
from unveil.weights import _vit
from unveil.weights._converted import Reader, State

#: Inside a block: published names → theirs.
BLOCK = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.q.": "attention.attention.query.",
    "attn.k.": "attention.attention.key.",
    "attn.v.": "attention.attention.value.",
    "attn.q_bias": "attention.attention.q_bias",
    "attn.v_bias": "attention.attention.v_bias",
    "attn.proj.": "attention.output.dense.",
    "attn.relative_position_bias_table": "attention.attention.relative_position_bias.relative_position_bias_table",
    "gamma_1": "lambda_1",
    "gamma_2": "lambda_2",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
#: Names of version 5's modules, and of files that it saved, → those of the files on the Hub.
ALIASES = {
    r"\bdecoder_encoder\.layer\.": "decoder_layers.",
    r"(^|\.)layers\.(?=\d)": r"\1encoder.layer.",
    r"(encoder\.layer\.\d+\.)relative_position_bias\.": r"\1attention.attention.relative_position_bias.",
    r"\bshared_position_bias\.": "encoder.relative_position_bias.",
    r"\battention\.q_proj\.": "attention.attention.query.",
    r"\battention\.k_proj\.": "attention.attention.key.",
    r"\battention\.v_proj\.": "attention.attention.value.",
    r"\battention\.o_proj\.": "attention.output.dense.",
    r"\bmlp\.fc1\.": "intermediate.dense.",
    r"\bmlp\.fc2\.": "output.dense.",
}
EPS = 1e-6


class Reverted(NamedTuple):
    """A network of ours as one of theirs.

    Attributes:
        architecture: their class.
        config: its config.json.
        state: tensors under their names.
    """

    architecture: str
    config: dict[str, Any]
    state: State


def published(state: Mapping[str, Tensor], *tables: Mapping[str, str]) -> State:
    """Their state dict under the published names; one that is not theirs is passed through.

    Args:
        state: of one of their classes, with or without a head, from a file or from memory.
        tables: published prefix → theirs; the one that fits most names is used. What it does not know keeps its name.
    """
    if not any(name.endswith("patch_embeddings.projection.weight") for name in state):
        return dict(state)
    found: list[tuple[int, State]] = []
    for table in tables:
        base = _base(table)
        bare = not any(name.startswith(base) for name in state)
        theirs = {_canonical(base + name if bare else name): value for name, value in state.items()}
        backwards = {new: old for old, new in table.items()}
        renamed = _renamed(theirs, backwards, {new: old for old, new in BLOCK.items()})
        found.append((len(renamed.keys() - theirs.keys()), renamed))
    ours = max(found, key=lambda pair: pair[0])[1]
    for name in [name for name in ours if re.search(r"\.attn\.[qv]\.bias$", name)]:
        key = re.sub(r"\.[qv]\.bias$", ".k.bias", name)
        if f"{name.removesuffix('.bias')}.weight" in ours and key not in ours:
            ours[key] = torch.zeros_like(ours[name])  # none on the keys, where it changes nothing
    return _vit.fuse_qkv(ours)


def _canonical(name: str) -> str:
    for theirs, file in ALIASES.items():
        name = re.sub(theirs, file, name)
    return name


def _base(table: Mapping[str, str]) -> str:
    """The prefix of the encoder in their classes: "vit."."""
    return next(new for new in table.values() if ".embeddings." in new).partition(".")[0] + "."


def _renamed(state: Mapping[str, Tensor], table: Mapping[str, str], block: Mapping[str, str]) -> State:
    renamed = {}
    for name, value in state.items():
        for old, new in table.items():
            if name.startswith(old):
                rest = name.removeprefix(old)
                if inside := re.fullmatch(r"(\d+\.)(.+)", rest):
                    part = next((key for key in block if inside[2].startswith(key)), None)
                    if part is not None:
                        rest = inside[1] + block[part] + inside[2].removeprefix(part)
                name = new + rest
                break
        renamed[name] = value
    return renamed


def foreign(state: Mapping[str, Tensor], table: Mapping[str, str], encoder_only: bool) -> State:
    """A published state dict under their names, with queries, keys and values apart."""
    apart = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                apart[name.replace(".qkv.", f".{part}.")] = third
        else:
            apart[name] = value
    theirs = _renamed(apart, table, BLOCK)
    if encoder_only:
        base = _base(table)
        theirs = {name.removeprefix(base): value for name, value in theirs.items() if name.startswith(base)}
    return {name: value.detach().contiguous() for name, value in theirs.items()}


def own_state(network: nn.Module, names: Mapping[str, str]) -> State:
    """The tensors of an objective under the published names that `names` (published → ours) gives, and no others.

    Learned factors on a block's branches are multiplied into its linear layers.
    """
    state = network.state_dict()
    for prefix, module in network.named_modules():
        if isinstance(module, Block):
            for scale, layer in ((module.scale1, "attn.proj"), (module.scale2, "mlp.fc2")):
                if isinstance(scale, LayerScale):
                    state[f"{prefix}.{layer}.weight"] = state[f"{prefix}.{layer}.weight"] * scale.gamma[:, None]
                    state[f"{prefix}.{layer}.bias"] = state[f"{prefix}.{layer}.bias"] * scale.gamma
    left_out = re.compile(r"\.(positions|scale[12])\.")
    kept = {name: value for name, value in state.items() if not left_out.search(name)}
    return Reader(kept).renamed({ours: theirs for theirs, ours in names.items()})


def table_with_class(positions: nn.Module) -> Tensor:
    """Positions [1, 1 + N, D] whose first row is the class token's: zeros, since ours is part of the token."""
    table = cast(Positions, positions).table[None]
    return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)


def checked(
    encoder: nn.Module, qkv_bias: str, positions: tuple[str, ...], class_token: bool, relative: bool = False
) -> ViT:
    """The encoder, if one of their vision transformers can be it.

    Args:
        encoder: of ours.
        qkv_bias: "all" or "qv": what their class has.
        positions: kinds of table that it can hold.
        class_token: whether it has one.
        relative: whether it has a token for what is masked, and may have a bias of relative positions instead of a table.

    Raises:
        UserError: it cannot; the text says what is in the way.
    """
    if not isinstance(encoder, ViT):
        raise UserError(refusal([f"its encoder is a {type(encoder).__name__}"]))
    wrong = []
    if not isinstance(encoder.patchify, Patchify) or not isinstance(encoder.embed, nn.Linear):
        wrong.append("its patches are embedded by more than a linear layer")
    elif encoder.patchify.stride != encoder.patchify.size:
        wrong.append("its patches overlap (--patch-stride)")
    biased = relative and relative_of(encoder) is not None
    if encoder.attention_bias is not None and not biased:
        wrong.append("its attention has a bias of relative positions")
    if encoder.masked != "drop" and not relative:
        wrong.append("it puts a token in the place of what is masked")
    if (encoder.class_token is not None) != class_token:
        wrong.append("it has no class token" if class_token else "it has a class token")
    if not biased or encoder.positions is not None:
        wrong += _wrong_positions(encoder.positions, positions)
    if biased and encoder.positions is not None:
        wrong.append("it has absolute and relative positions at once")
    wrong += _wrong_bias(encoder.blocks[0], qkv_bias)
    if wrong:
        raise UserError(refusal(wrong))
    return encoder


def relative_of(encoder: ViT) -> RelativePositionBias | None:
    """The bias of the attention by distance, that of the first block where each has its own; None where there is none."""
    bias = encoder.attention_bias
    first = bias[0] if isinstance(bias, nn.ModuleList) and len(bias) else bias
    return first if isinstance(first, RelativePositionBias) else None


def _wrong_positions(positions: nn.Module | None, kinds: tuple[str, ...]) -> list[str]:
    whole = isinstance(positions, Positions) and positions.axes == tuple(range(len(positions.axes)))
    if isinstance(positions, Positions) and whole and positions.kind in kinds:
        return []
    found = positions.kind if isinstance(positions, Positions) else type(positions).__name__
    return [f"its positions are {found}, where theirs are {' or '.join(kinds)}"]


def _wrong_bias(block: nn.Module, wanted: str) -> list[str]:
    attention = cast(Any, block).attn
    found = "all" if attention.qkv.bias is not None else "qv" if attention.q_bias is not None else "none"
    return [] if found == wanted else [f"its attention has biases on {found} of queries, keys and values"]


def checked_decoder(
    decoder: nn.Module, qkv_bias: str, positions: tuple[str, ...], embed_bias: bool, shared: bool
) -> Any:
    """The decoder, if one of theirs can be it; arguments and errors as for `checked`.

    Args:
        embed_bias: whether the linear layer before it has one.
        shared: whether the encoder's class token goes through it.
    """
    from unveil.decoders import TransformerDecoder

    if not isinstance(decoder, TransformerDecoder):
        raise UserError(refusal([f"its decoder is a {type(decoder).__name__}"]))
    wrong = [*_wrong_positions(decoder.positions, positions), *_wrong_bias(decoder.blocks[0], qkv_bias)]
    if (decoder.embed.bias is not None) != embed_bias or decoder.class_token is not None:
        wrong.append("its decoder embeds tokens in another way")
    if decoder.share_class_token != shared:
        wrong.append("its decoder treats the class token in another way")
    if wrong:
        raise UserError(refusal([text.replace("its positions", "its decoder's positions") for text in wrong]))
    return decoder


def refusal(wrong: list[str]) -> str:
    return f"transformers has no class for this network: {'; '.join(wrong)}. Use --format torch, onnx or safetensors instead."


def sizes(encoder: ViT) -> dict[str, Any]:
    """What their configurations of all vision transformers say."""
    patchify, positions = cast(Patchify, encoder.patchify), relative_of(encoder) or cast(Positions, encoder.positions)
    patch = patchify.size[-2:]
    image = tuple(n * p for n, p in zip(positions.grid[-2:], patch, strict=True))
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        **_block_sizes(encoder.blocks[0]),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": EPS,
        "image_size": image[0] if image[0] == image[1] else list(image),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "num_channels": patchify.channels,
    }


def decoder_sizes(decoder: Any) -> dict[str, Any]:
    sizes = {"hidden_size": decoder.embed.out_features, "num_hidden_layers": len(decoder.blocks)}
    return {f"decoder_{name}": value for name, value in (sizes | _block_sizes(decoder.blocks[0])).items()}


def _block_sizes(block: nn.Module) -> dict[str, int]:
    block = cast(Block, block)
    return {"num_attention_heads": block.attn.heads, "intermediate_size": block.mlp.fc1.out_features}


def linear_head(head: nn.Module) -> None:
    """Refuse a head that is not one linear layer, as a `UserError`."""
    from unveil.heads import LinearHead

    if not isinstance(head, LinearHead):
        raise UserError(refusal([f"its head is a {type(head).__name__}"]))


def revert(objective: nn.Module, encoder_only: bool = False) -> Reverted:
    """An objective as one of transformers' classes.

    Args:
        objective: `Supervised` or `MaskedAutoencoder` over a vision transformer, or `TwoTower` with one.
        encoder_only: only its encoder.

    Raises:
        UserError: they have no class for it; the text says what is in the way.
    """
    from unveil.objectives import MaskedAutoencoder, Supervised, TwoTower

    if isinstance(objective, TwoTower):
        return importlib.import_module("unveil.weights.clip").revert(objective, encoder_only)
    if not isinstance(objective, MaskedAutoencoder | Supervised):
        raise UserError(refusal([f"it learns as {type(objective).__name__}"]))
    encoder = objective.encoder
    if not isinstance(encoder, ViT) or not isinstance(encoder.patchify, Patchify):
        raise UserError(refusal([f"its encoder is a {type(encoder).__name__}"]))
    axes = len(encoder.patchify.size)
    if axes not in (2, 3):
        raise UserError(refusal([f"its signal has {axes} axes"]))
    masked = isinstance(objective, MaskedAutoencoder) and not encoder_only
    if axes == 2 and encoder.blocks[0].get_submodule("attn").q_bias is not None:
        return importlib.import_module("unveil.weights.beit").revert(objective, encoder_only)
    system = "videomae" if axes == 3 else "mae" if masked or encoder.fc_norm is not None else "vit"
    return importlib.import_module(f"unveil.weights.{system}").revert(objective, encoder_only)
