"""Networks in and out: import, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unveil.errors import UserError
from unveil.job import Paths, paths_of
from unveil.screen import say

if TYPE_CHECKING:
    from unveil.run import Run


def import_(
    file: str | Path,
    *,
    out: str | Path,
    recipe: str | None = None,
    classes: str | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    text_num_heads: int | None = None,
    bgr: bool | None = None,
    licence: str | None = None,
    partial: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **flags: Any,
) -> Run:
    """A published checkpoint as a run, which predicts, embeds and fine-tunes like any other.

    Args:
        file: .pth, .pt or .safetensors, a folder that transformers wrote, or hub:NAME (hub:OWNER/NAME@REVISION) for one on
            the Hugging Face Hub; nothing in it is run.
        out: run folder to write.
        recipe: the system it is of: mae, videomae, vit, resnet, slowfast …; `pytorchvideo` finds out by itself, and a folder says so.
        classes: names of the classes: a text file with one a line, a .json, imagenet or kinetics400; numbers by default.
        num_heads: attention heads of the encoder, where the family's rule is not the checkpoint's.
        decoder_num_heads: the same of the decoder.
        text_num_heads: the same of a text's tower.
        bgr: the network sees blue, green, red, and its first kernel is turned around; of pycls' by default.
        licence: of the weights; what the family's authors or the folder's card say by default.
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

    out = Path(out)
    given = {
        "num_heads": num_heads,
        "decoder_num_heads": decoder_num_heads,
        "text_num_heads": text_num_heads,
        "bgr": bgr,
    }
    hints = {name: value for name, value in given.items() if value is not None}
    with alone(out):
        run, told = import_checkpoint(file, recipe, out, flags, hints, classes, licence, partial, overwrite)
    for line in told:
        say(quiet, line)
    say(quiet, f"written to {out}")
    return run


def export(
    run: str | Path | Run,
    *,
    format: Literal["torch", "onnx", "huggingface", "safetensors"],
    out: str | Path | None = None,
    part: Literal["whole", "encoder"] = "whole",
    data: Paths | None = None,
    use: str | None = None,
    weights: str = "last",
    push: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """A run's network for other programs: torch.export, ONNX, transformers, safetensors. Compared before it is written.

    Args:
        run: run folder.
        format: torch (.pt2), onnx, huggingface (a folder for transformers) or safetensors (with a .json beside).
        out: file to write, or folder for huggingface; RUN/export/… by default.
        part: whole (a classifier's logits; without classes the features) or encoder (the features).
        data: real files on which both are compared; some of the run's own by default. A network of images and clips is exported
            for what most of these files are.
        use: of a run of several streams the encoder: video, audio or both; both by default.
        weights: last, or best on the held-out data of the training.
        push: also put it on the Hugging Face Hub, as OWNER/NAME; only --format huggingface.
        private: of a repository that --push makes.
        overwrite: replace what is there.
        quiet: print nothing.

    Returns:
        The file, or the folder.

    Raises:
        UserError: the format cannot express the network, a package is missing, answers differ, or something is there.
    """
    from unveil.exporting import export_run
    from unveil.run import Run, load

    if push is not None and format != "huggingface":
        raise UserError(f"--push {push}: the Hub's format is transformers': add --format huggingface.")
    path, which = (run.path, run.weights) if isinstance(run, Run) else (run, weights)
    opened = load(path, "cpu", which)
    files = None if data is None else [Path(file) for file in paths_of(data)]
    written, told = export_run(opened, format, Path(out) if out else None, part, files, overwrite, use)
    for line in told:
        say(quiet, line)
    for file in written:
        say(quiet, f"written: {file} ({file.stat().st_size:,} bytes)")
    place = written[0].parent if format == "huggingface" else written[0]
    if push is not None:
        from unveil.hub import push as send

        message = f"{opened.info['recipe']} exported by unveil"
        say(quiet, f"pushed to {send(place, [file.name for file in written], push, private, message)}")
    return place
