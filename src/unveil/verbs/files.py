"""Files themselves: check, prepare, builtin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unveil.errors import UserError
from unveil.screen import say

if TYPE_CHECKING:
    from unveil.data.checked import Checked
    from unveil.data.prepare import Prepared


def check(
    *folders: str | Path,
    out: str | Path | None = None,
    workers: int = -1,
    timeout: float | None = None,
    recheck: bool = False,
    quiet: bool = False,
) -> Checked:
    """Decode every file once and write FOLDER/manifest.parquet, which all verbs then use.

    Args:
        folders: folders of media files.
        out: one manifest of all folders, above them, instead of one in each.
        workers: processes that decode; -1 for one per core.
        timeout: seconds a file may take; a minute, and a second more for each 100 kB, by default.
        recheck: decode all files again, also those that were good and have not changed.
        quiet: print nothing.

    Returns:
        What was found: `.bad`, `.duplicates`, `.manifest`. (The command's status is 1 when some files are bad.)

    Raises:
        UserError: no such folder, no media in it, or it cannot be written to.
    """
    from unveil.data.check import check as check_files

    checked = check_files(folders, out, workers=workers, timeout=timeout, recheck=recheck, quiet=quiet)
    _print(checked, quiet)
    return checked


def prepare(
    folder: str | Path,
    *,
    out: str | Path,
    short_side: int = 320,
    gop: int = 32,
    crf: int = 18,
    fps: float | None = None,
    points: int = 8192,
    rate: int = 16000,
    workers: int = -1,
    timeout: float | None = None,
    quiet: bool = False,
) -> Prepared:
    """Encode a folder of files anew, into another, for fast random access.

    Videos become H.264 in MP4 with their own times and their sound, images JPEG or PNG, clouds of points and meshes NPY, files
    of sound FLAC of one channel. The same command goes on where it was stopped, and does again only what changed. Sources are
    never written to.

    Args:
        folder: folder of media files.
        out: another folder, new or made by this command.
        short_side: pixels of the shorter side, at most; smaller files are not enlarged.
        gop: frames from one key frame to the next, at most.
        crf: quality of H.264, from 0 (lossless) to 51; 18 looks the same.
        fps: frames per second, at most; all frames by default.
        points: of a cloud, at most; of a mesh, drawn on its surface.
        rate: samples of sound per second, at most.
        workers: processes that encode; -1 for one per core.
        timeout: seconds a file may take; two minutes, and a second more for each 10 kB, by default.
        quiet: print nothing.

    Returns:
        What was done: `.bad`, `.manifest`. (The command's status is 1 when some files are bad.)

    Raises:
        UserError: no such folder, `out` holds something else, the disk is full.
    """
    from unveil.data.encode import Encoding
    from unveil.data.prepare import prepare as prepare_files

    for name, value, low, high in (
        ("short-side", short_side, 2, 16384), ("gop", gop, 1, 1000), ("crf", crf, 0, 51), ("points", points, 1, 1 << 24),
        ("rate", rate, 100, 655350),
    ):  # fmt: skip
        if not low <= value <= high:
            raise UserError(f"--{name} {value}: between {low} and {high}.")
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"--fps {fps}: between 0 and 1000.")
    prepared = prepare_files(
        folder, out, Encoding(short_side, gop, crf, fps, points, rate), workers=workers, timeout=timeout, quiet=quiet,
        warn=lambda text: say(quiet, f"warning: {text}"),
    )  # fmt: skip
    _print(prepared, quiet)
    return prepared


def _print(found: Checked | Prepared, quiet: bool) -> None:
    if not quiet:
        from rich.console import Console

        console = Console()
        for style, text in found.sentences():
            console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def builtin(
    name: str,
    *,
    out: str | Path,
    unlabelled: int = 2000,
    labelled: int = 160,
    test: int = 400,
    frames: int = 16,
    size: int = 32,
    seed: int = 0,
) -> None:
    """Write small data that need no download.

    Args:
        name: moving-digits: handwritten digits in motion over textured backgrounds, as H.264 files.
        out: folder for unlabelled/, labelled/CLASS/ and test/CLASS/.
        unlabelled: clips without labels.
        labelled: clips with labels.
        test: clips to test on; their digits are never seen elsewhere.
        frames: frames of each clip.
        size: height and width in pixels.
        seed: of everything random.

    Raises:
        UserError: no such data, or the folder holds something else.
    """
    if name != "moving-digits":
        raise UserError(f"unveil data builtin {name}: unknown. There is: moving-digits")
    from unveil.data.builtin import moving_digits

    moving_digits(Path(out), unlabelled=unlabelled, labelled=labelled, test=test, frames=frames, size=size, seed=seed)
