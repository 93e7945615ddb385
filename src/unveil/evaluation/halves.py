"""What a probe learns from, and what is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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


def framed(evaluation: Sequence[Any], short: int | None, crop: int | None) -> list[Any]:
    """The transforms of evaluation with another short side and another crop, in pixels.

    Raises:
        UserError: there is no such transform to change, or the crop does not fit into the short side.
    """
    import torch
    from torchvision.transforms import v2

    from unveil.data import CenterCrop

    changed: list[Any] = []
    sides = {v2.Resize: ("--short", short), v2.CenterCrop: ("--crop", crop)}
    for kind, (flag, side) in sides.items():
        if side is not None and (side < 1 or not any(isinstance(step, kind) for step in evaluation)):
            why = "must be positive" if side < 1 else f"the recipe's evaluation has no {kind.__name__} to change"
            raise UserError(f"{flag} {side}: {why}.")
    for step in evaluation:
        if isinstance(step, v2.Resize) and short is not None:
            step = v2.Resize(short, interpolation=step.interpolation, antialias=step.antialias)
        elif isinstance(step, v2.CenterCrop) and crop is not None:
            step = CenterCrop(crop)
        changed.append(step)
    shorts = [step.size[0] for step in changed if isinstance(step, v2.Resize) and step.size and len(step.size) == 1]
    crops = [
        v2.functional.get_size(step(torch.zeros(1, 1, 1)))[0] for step in changed if isinstance(step, v2.CenterCrop)
    ]
    if shorts and crops and crops[-1] > shorts[-1] and (short or crop):
        raise UserError(f"A crop of {crops[-1]} does not fit into a short side of {shorts[-1]}: give --short as well.")
    return changed
