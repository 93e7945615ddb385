"""What a probe learns from, and what is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.data import Manifest


def halves(
    by: str, manifest: Manifest, test: Manifest | None, fraction: float, seed: int, say: Callable[[str], None]
) -> tuple[Manifest, Manifest]:
    """What a probe learns from, and what is tested."""
    from unveil.data import split

    manifest = with_labels(manifest)
    if test is not None:
        return manifest, with_labels(test)
    tested = manifest.select("test")
    if by == "accuracy":
        if len(tested):
            say(f"testing on the {len(tested)} files of split test")
            return manifest, tested
        return manifest, manifest
    if len(tested):
        return manifest.select("train", "val", ""), tested
    return split(manifest, fraction, seed=seed)


def with_labels(manifest: Manifest) -> Manifest:
    """The rows that have a label.

    Raises:
        UserError: none.
    """
    labelled = manifest.labelled()
    if not len(labelled):
        raise UserError(
            f"none of the {len(manifest)} files has a label to compare with. Put them into one folder per class, "
            "or beside them a labels.csv with the columns path,label."
        )
    return labelled


def views(text: str) -> dict[str, int]:
    try:
        clips, crops = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--views {text}: give clips x crops, e.g. 5x3.") from None
    if clips < 1 or crops not in (1, 3):
        raise UserError(f"--views {text}: at least one clip, and 1 or 3 crops.")
    return {"clips": clips, "crops": crops}
