"""`unveil doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any


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
    rows += [_torchvision(), *_codecs()]
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
        import torchvision.ops

        torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
    except Exception as error:  # a torchvision built for another torch fails in many ways
        return ("torchvision ops", False, f"do not work with this torch: {error}. Reinstall both together.")
    return ("torchvision ops", True, "work")


def _codecs() -> list[tuple[str, bool, str]]:
    import av.codec

    rows = []
    for codec in ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "flac"):
        try:
            av.codec.Codec(codec, "r")
            rows.append((f"decodes {codec}", True, "yes"))
        except av.codec.codec.UnknownCodecError:
            rows.append((f"decodes {codec}", False, "no: this PyAV was built without it"))
    return rows


def doctor() -> None:
    """Print versions, devices, codecs and what is missing; exit with 1 if something is."""
    from rich.console import Console
    from rich.table import Table

    rows: list[tuple[Any, ...]] = findings()
    table = Table(show_header=False, box=None)
    for what, good, found in rows:
        table.add_row("ok" if good else "[red]MISSING[/red]", what, found)
    Console().print(table)
    if not all(good for _, good, _ in rows):
        sys.exit(1)
