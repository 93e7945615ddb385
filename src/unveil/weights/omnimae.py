"""facebookresearch/omnivore, omnimae/: `omni_mae_model` (pre-training, also its encoder alone, and fine-tuned)."""

from __future__ import annotations

from typing import Any

from unveil.weights import _vit
from unveil.weights._converted import Converted, Reader, State

LICENCE = "CC-BY-NC-4.0 (facebookresearch/omnivore)"

ENCODER = {
    "trunk.patch_embed.proj.1.bias": "encoder.embed.bias",
    "trunk.blocks.": "encoder.blocks.",
}
PRETRAINED = {
    "trunk.norm.": "encoder.norm.",
    "trunk.mask_token": "decoder.mask_token",
    "trunk.decoder.decoder_embed.": "decoder.embed.",
    "trunk.decoder.decoder_blocks.": "decoder.blocks.",
    "trunk.decoder.norm.": "decoder.norm.",
    "head.": "decoder.head.",
}
FINETUNED = {"trunk.norm.": "encoder.fc_norm.", "head.": "head.linear."}


def convert(state: State, num_heads: int | None = None, decoder_num_heads: int = 16, **flags: Any) -> Converted:
    """See `unveil.weights.convert`. The tables of positions are fixed, one sinusoid over all tubelets in order, and tell their
    number alone: frames and side are those of `frames` and `crop`, and computed for them."""
    given = Reader(_vit.fold_layer_scale(state))
    weight = given["trunk.patch_embed.proj.1.weight"]
    tubelet, patch = _vit.patch_size(weight, 3)[:2]
    size, notes = _vit.size_of(len(weight), _vit.depth(given, "trunk.blocks."), num_heads)
    found: dict[str, Any] = {"size": size, "patch": patch, "tubelet": tubelet}
    pretrained = "trunk.mask_token" in given
    ours = given.renamed(ENCODER | (PRETRAINED if pretrained else FINETUNED))
    ours["encoder.embed.weight"] = _vit.embedding(weight)
    if "decoder.mask_token" in ours:
        ours["decoder.mask_token"] = ours["decoder.mask_token"].view(1, 1, -1)  # theirs has no axis of tokens
    for table in ("trunk.pos_embed", "trunk.decoder.pos_embed"):
        if table in given:
            given[table]  # computed, not read: see above
    if not pretrained:
        absent = () if "head.weight" in given else ("head.",)
        return Converted("omnimae:finetune", found | _vit.head(given), ours, absent, given.unused, notes)
    if "trunk.decoder.decoder_embed.weight" not in given:
        notes.append("the file holds the encoder alone; the decoder is as initialised, so reconstructions mean nothing")
        return Converted("omnimae", found, ours, ("decoder.",), given.unused, notes)
    found["decoder_width"] = len(given["trunk.decoder.decoder_embed.weight"])
    found["decoder_depth"] = _vit.depth(given, "trunk.decoder.decoder_blocks.")
    found["decoder_heads"] = decoder_num_heads
    return Converted("omnimae", found, ours, unused=given.unused, notes=notes)
