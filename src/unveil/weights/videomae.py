"""MCG-NJU/VideoMAE: `modeling_pretrain` and `modeling_finetune`."""

from __future__ import annotations

from typing import Any

from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (MCG-NJU/VideoMAE)"

PRETRAINED = {
    "encoder.patch_embed.proj.bias": "encoder.embed.bias",
    "encoder.blocks.": "encoder.blocks.",
    "encoder.norm.": "encoder.norm.",
    "encoder_to_decoder.": "decoder.embed.",
    "mask_token": "decoder.mask_token",
    "decoder.": "decoder.",
}
FINETUNED = {
    "patch_embed.proj.bias": "encoder.embed.bias",
    "blocks.": "encoder.blocks.",
    "fc_norm.": "encoder.fc_norm.",
    "head.": "head.linear.",
}


def convert(state: State, num_heads: int | None = None, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. Positions are fixed and not saved: they are computed for `frames` and `crop`."""
    given = Reader(_vit.fold_layer_scale(state))
    pretrained = "mask_token" in given
    prefix = "encoder." if pretrained else ""
    weight = given[f"{prefix}patch_embed.proj.weight"]
    tubelet, patch = _vit.patch_size(weight, 3)[:2]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, f"{prefix}blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch, "tubelet": tubelet}
    ours = given.renamed(PRETRAINED if pretrained else FINETUNED)
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    if pretrained:
        found["decoder_depth"] = _vit.depth(given, "decoder.blocks.")
        return Converted("videomae", found, ours, unused=given.unused, notes=notes)
    absent = () if "head.weight" in given else ("head.",)
    return Converted("videomae:finetune", found | _vit.head(given), ours, absent, given.unused, notes)
