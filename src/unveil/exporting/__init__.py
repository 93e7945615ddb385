"""A run folder → files for other programs: safetensors, torch.export, ONNX, transformers.

What was made is compared with the run before it is said to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unveil.errors import UserError
from unveil.storage import replacing

if TYPE_CHECKING:
    from unveil.exporting.network import Part
    from unveil.run import Run

#: Format → suffix of its file; transformers' is a folder.
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors", "huggingface": ""}


def export_run(
    run: Run,
    format: str,
    out: Path | None = None,
    part: Part = "whole",
    data: Sequence[Path] | None = None,
    overwrite: bool = False,
    use: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Export a run; returns the files written, and what a person should know of them, as sentences.

    Args:
        run: opened on the CPU.
        format: one of `SUFFIXES`.
        out: file, or folder for "huggingface"; RUN/export/… by default.
        part: "whole" or "encoder".
        data: files to compare on; the run's own by default. A network of images and clips is exported for what most of them are.
        overwrite: replace what is there.
        use: the tower, of a run of several streams; None for that of the whole signal.

    Raises:
        UserError: something is there, the format cannot express the network, a package is missing, or answers differ.
    """
    from unveil.exporting.network import network_of, signals

    if format not in SUFFIXES:
        raise UserError(f"--format {format}: unknown. Use {', '.join(SUFFIXES)}.")
    if part not in ("whole", "encoder"):
        raise UserError(f"--part {part}: unknown. Use whole or encoder.")
    suffix = SUFFIXES[format]
    name = f"encoder{suffix}" if part == "encoder" else f"network{suffix}"
    out = out or run.path / "export" / (name if suffix else f"huggingface-{part}")
    _check_free(out, suffix, overwrite)
    network = network_of(run, part, data, use)
    took = "takes " + " and ".join(f"{name} [batch, {_shape(shape)}]" for name, shape in network.shapes.items())
    gives = f"gives {network.output} [{_shape(network.description['output']['shape'])}]"
    if format == "safetensors":
        from unveil.exporting.tensors import write_tensors

        written = write_tensors(run, network, part, out, use)
        return written, ["the tensors were read back: they are the run's, bit for bit"]
    x, what = signals(run, data, use)
    if format == "huggingface":
        from unveil.exporting.huggingface import write_folder

        written, told = write_folder(run, network, part, out, x, what)
        return written, [told]
    from unveil.exporting.programs import onnx_program, torch_program

    content, deviation = (torch_program if format == "torch" else onnx_program)(network, x)
    with replacing(out) as temporary:
        temporary.write_bytes(content)
    return [out], [f"{took}, {gives}", f"loaded again and compared on {what}: the largest difference is {deviation}"]


def _shape(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape))


def _check_free(out: Path, suffix: str, overwrite: bool) -> None:
    """Refuse, as a `UserError`, what is there and may not be replaced, and a name with another suffix."""
    if suffix:
        if out.suffix != suffix:
            raise UserError(f"--out {out}: a file of this format ends in {suffix}.")
        for file in [out] + ([out.with_suffix(".json")] if suffix == ".safetensors" else []):
            if file.exists() and not (overwrite and file.is_file()):
                raise UserError(f"{file} is there already: use --overwrite to replace it, or name another --out.")
        return
    from unveil.exporting.huggingface import CONFIG, FILES

    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: is a file; transformers' format is a folder.")
    inside = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    ours = CONFIG in inside or inside <= set(FILES)  # what a kill left has no config.json
    if inside and not (overwrite and ours):
        what = "holds a network: use --overwrite to replace it" if ours else "is not empty: empty it"
        raise UserError(f"--out {out} {what}, or name a new folder.")
