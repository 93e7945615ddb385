"""`unveil doctor`: what this machine offers, and what is missing; `unveil doctor RUN`: why a run met a loss that is not finite."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unveil.training.diagnosis import Replay

MOST_LINES = 20
LEAST_OPEN_FILES = 1024


def findings() -> list[tuple[str, bool, str]]:
    """Rows of (what, whether it is as it should be, what was found)."""
    import torch

    from unveil.run import versions

    rows: list[tuple[str, bool, str]] = []
    for name, found in versions().items():
        rows.append((name, True, found))
    rows.append(("cores", True, f"{os.cpu_count()}; torch uses {torch.get_num_threads()} threads"))
    cuda = torch.cuda.is_available()
    rows.append(
        (
            "cuda",
            True,
            f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, bf16 {torch.cuda.is_bf16_supported()}"
            if cuda
            else "none; --device auto runs on the CPU (use --preset small)",
        )
    )
    rows.append(("mps", True, "there" if torch.backends.mps.is_available() else "none"))
    rows += [_torchvision(), _ffmpeg(), *_codecs(), *_open_files()]
    free = shutil.disk_usage(".").free / 2**30
    rows.append(("disk here", free > 1, f"{free:.1f} GiB free"))
    shared = shutil.disk_usage("/dev/shm").free / 2**30 if os.path.isdir("/dev/shm") else None
    if shared is not None:
        # Loader workers hand batches over through shared memory; a container's default of 64 MB kills them.
        rows.append(
            (
                "shared memory",
                shared > 0.5,
                f"{shared:.1f} GiB free"
                + ("" if shared > 0.5 else "; start the container with --shm-size 8g, or use --loader.workers 0"),
            )
        )
    return rows


def _torchvision() -> tuple[str, bool, str]:
    import torch

    try:
        import torchvision
        import torchvision.ops

        torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
    except Exception as error:  # a torchvision built for another torch fails in many ways
        return (
            "torchvision ops",
            False,
            f"do not work with torch {torch.__version__}: {error}. Reinstall both together.",
        )
    return ("torchvision ops", True, f"{torchvision.__version__} works with torch {torch.__version__}")


def _ffmpeg() -> tuple[str, bool, str]:
    import av

    found = ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items()))
    return ("FFmpeg", True, f"{found} (PyAV's own)")


def _open_files() -> list[tuple[str, bool, str]]:
    """Every tensor on its way from a worker holds a file open: PyTorch's default on Linux."""
    try:
        import resource
    except ImportError:  # not on Windows
        return []
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= LEAST_OPEN_FILES:
        return [("open files", True, f"up to {'any number' if limit == resource.RLIM_INFINITY else limit}")]
    remedy = f"raise the limit with: ulimit -n {LEAST_OPEN_FILES if most < 0 else min(LEAST_OPEN_FILES, most)}"
    return [("open files", False, f"up to {limit}: loader workers may run out of them; {remedy}")]


def _codecs() -> list[tuple[str, bool, str]]:
    import av.codec

    rows = []
    for codec in ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "flac"):
        try:
            av.codec.Codec(codec, "r")
            rows.append((f"decodes {codec}", True, "yes"))
        except av.codec.codec.UnknownCodecError:
            rows.append((f"decodes {codec}", False, "no: this PyAV was built without it"))
    try:
        av.codec.Codec("libx264", "w")
        rows.append(("encodes h264", True, "yes"))
    except av.codec.codec.UnknownCodecError:
        rows.append(
            ("encodes h264", False, "no libx264 in this PyAV: `unveil data builtin` and `data prepare` need it")
        )
    return rows


def doctor(run: str | Path | None = None, *, device: str = "auto") -> None:
    """Print versions, devices, codecs and what is missing; exit with 1 if something is.

    With a run: replay the step at which it met a loss or gradient that is not finite, and say where that begins; exit with
    1 if it is not finite again.

    Args:
        run: run folder that holds nan/.
        device: on which to replay: auto, cpu, cuda or mps.

    Raises:
        UserError: the run has kept no such step, or it cannot be read.
    """
    if run is not None:
        from unveil.run import load
        from unveil.training.replay import replay

        replayed = replay(load(run, device))
        print_replay(replayed)
        if replayed.repeated:
            sys.exit(1)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows: list[tuple[Any, ...]] = findings()
    table = Table(show_header=False, box=None)
    for what, good, found in rows:
        table.add_row(Text("ok") if good else Text("MISSING", style="red"), what, Text(found))
    Console().print(table)
    if not all(good for _, good, _ in rows):
        sys.exit(1)


def print_replay(found: Replay) -> None:
    """A replayed step on the screen."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()

    def block(title: str, lines: Sequence[str], style: str = "") -> None:
        if lines:
            console.print(Text(title, style="bold"))
            for line in lines[:MOST_LINES]:
                console.print(Padding(Text(line, style=style, overflow="fold"), (0, 0, 0, 2)))
            if len(lines) > MOST_LINES:
                console.print(Text(f"  … {len(lines) - MOST_LINES} more"))

    console.print(Text(f"step {found.step}: {found.recorded}"))
    again = "again it is not finite" if found.repeated else "every value is finite this time"
    console.print(Text(f"replayed on {found.device}: {again}"))
    block("replayed losses", found.losses)
    block("not as in the run", found.notes)
    block("weights that were not finite before the step", found.weights, "red")
    block("very large weights", found.huge)
    block("samples that are not finite themselves", found.inputs, "red")
    if found.origin is not None:
        block("first not finite", [found.origin.where, *found.origin.values], "red")
    block("backward pass", found.backward, "red")
    block("files whose sample alone is enough", found.files, "red")
    if found.float32 is not None:
        block("in float32", ["finite" if found.float32 else "not finite either"])
    block("what to do", found.advice)
