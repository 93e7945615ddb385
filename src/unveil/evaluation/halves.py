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
    splits = [row.split for row in manifest]
    if by == "accuracy":
        if "test" in splits:
            chosen = [i for i, name in enumerate(splits) if name == "test"]
            say(f"testing on the {len(chosen)} files of split test")
            return manifest, manifest.select(chosen)
        return manifest, manifest
    if "test" in splits:
        return (
            manifest.select([i for i, name in enumerate(splits) if name != "test"]),
            manifest.select([i for i, name in enumerate(splits) if name == "test"]),
        )
    return split(manifest, fraction, seed=seed)


def with_labels(manifest: Manifest) -> Manifest:
    keep = [i for i, row in enumerate(manifest) if row.label]
    if not keep:
        raise UserError(
            f"none of the {len(manifest)} files has a label to compare with. Put them into one folder per class, "
            "or beside them a labels.csv with the columns path,label."
        )
    return manifest.select(keep)


def views(text: str) -> dict[str, int]:
    try:
        clips, crops = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--views {text}: give clips x crops, e.g. 5x3.") from None
    if clips < 1 or crops not in (1, 3):
        raise UserError(f"--views {text}: at least one clip, and 1 or 3 crops.")
    return {"clips": clips, "crops": crops}
