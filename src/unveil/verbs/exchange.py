"""Networks in and out: import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.screen import say

if TYPE_CHECKING:
    from unveil.run import Run


def import_(
    file: str | Path,
    *,
    recipe: str,
    out: str | Path,
    classes: str | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    licence: str | None = None,
    partial: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **flags: Any,
) -> Run:
    """A published checkpoint as a run, which predicts, embeds and fine-tunes like any other.

    Args:
        file: .pth, .pt or .safetensors; nothing in it is run.
        recipe: the system it is of: mae, mae_st, s3d, s3dg, videomae or vit (also in timm's and torchvision's names).
        out: run folder to write.
        classes: names of the classes: a text file with one a line, a .json, imagenet or kinetics400; numbers by default.
        num_heads: attention heads of the encoder, where the family's rule is not the checkpoint's.
        decoder_num_heads: the same of the decoder.
        licence: of the weights; what the family's authors say by default.
        partial: load what fits, although tensors are missing or left over.
        overwrite: replace a run that is there.
        quiet: print nothing.
        flags: of the recipe, where the network shall differ from the checkpoint's (frames, crop, patch, patch_stride,
            num_classes): positions are interpolated, patches resampled, a head of other classes is begun anew, and it is said.

    Returns:
        The run.

    Raises:
        UserError: the file is no such checkpoint, or tensors do not match: the text names them.
    """
    from unveil.importing import import_checkpoint
    from unveil.training.guards import alone

    file, out = Path(file), Path(out)
    heads = {"num_heads": num_heads, "decoder_num_heads": decoder_num_heads}
    hints = {name: value for name, value in heads.items() if value is not None}
    with alone(out):
        run, told = import_checkpoint(file, recipe, out, flags, hints, classes, licence, partial, overwrite)
    for line in told:
        say(quiet, line)
    say(quiet, f"written to {out}")
    return run
