"""Residual networks over clips: what kind a converted state is of, and with which flags it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unveil.errors import UserError
from unveil.weights import _residual
from unveil.weights._converted import Converted, Reader, State
from unveil.weights._residual import Placed

STEM = "encoder.stem.0.conv.weight"


def converted(given: Reader, found: Placed, wanted: str | None, **hints: Any) -> Converted:
    """The recipe and flags of a network in our names.

    Args:
        given: what the names were read from.
        found: what became of it.
        wanted: the system it should be of; None for any.
        hints: flags that the caller gives; what cannot be told is not assumed where one says it.

    Raises:
        UserError: it is of another system.
    """
    state = {
        name: tensor.flatten(1) if name in ("head.hidden.weight", "head.linear.weight") else tensor
        for name, tensor in found.state.items()
    }
    if "encoder.slow.stem.0.conv.weight" in state:
        recipe, flags, notes = _slowfast(state, found.depths, hints)
    elif "encoder.stem.0.weight" in state:
        recipe, flags, notes = _x3d(state, found.depths["encoder."], hints)
    elif "encoder.blocks.0.branch.b.conv.1.weight" in state:
        _residual.layers(found.depths["encoder."])
        recipe, flags, notes = "r2plus1d", {"size": "R50", "width": len(state["encoder.stem.conv.weight"])}, []
    elif STEM in state:
        recipe, flags, notes = _single(state, found.depths["encoder."], hints)
    else:
        raise UserError("These are not the weights of a residual network over clips: the stem is missing.")
    if wanted not in (None, recipe):
        raise UserError(f"These are the weights of {recipe}, not of {wanted}.")
    flags |= _residual.classes(state)
    return Converted(recipe, flags, state, _residual.absent(state), given.unused, notes)


def _single(state: State, depths: tuple[int, ...], hints: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """C2D, I3D, Slow, each with non-local blocks or without."""
    weight = state[STEM]
    timed = any(name.endswith("branch.a.conv.weight") and tensor.shape[2] > 1 for name, tensor in state.items())
    kind = "i3d" if weight.shape[2] > 1 else "slow" if timed else "c2d"
    size = hints.get("size", f"R{_residual.layers(depths)}_8x8")
    flags: dict[str, Any] = {"size": size, "width": len(weight)}
    notes = []
    if not hints.keys() & {"size", "frames"}:
        notes.append(f"clips of 8 frames, 8 apart, assumed ({size}): --frames and --stride say otherwise")
    if not (places := _nonlocal_places(state, "encoder.", depths)):
        return kind, flags, notes
    flags |= {"backbone": kind, "places": ",".join(f"{stage}.{block}" for stage, block in places)}
    flags["similarity"] = hints.get("similarity", "dot" if kind == "slow" else "embedded")
    if "similarity" not in hints:
        notes.append(f"similarity {flags['similarity']} assumed, as released with {kind}: --similarity says otherwise")
    return "nonlocal", flags, notes


def _nonlocal_places(state: State, prefix: str, depths: Sequence[int]) -> list[tuple[int, int]]:
    """Stages and blocks, from 0, behind which a non-local block stands."""
    blocks = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    return [place for number, place in enumerate(blocks) if f"{prefix}blocks.{number}.inserted.g.weight" in state]


def _slowfast(
    state: State, depths: dict[str, tuple[int, ...]], hints: dict[str, Any]
) -> tuple[str, dict[str, Any], list[str]]:
    from unveil.recipes.slowfast import SIZES

    blocks = depths["encoder.slow."]
    number = _residual.layers(blocks)
    lateral = state["encoder.laterals.0.fuse.conv.weight"].shape[2]
    notes = []
    if number == 50:
        size = "R50_8x8" if lateral == SIZES["R50_8x8"].lateral else "R50_4x16"
    else:
        last = state[f"encoder.slow.blocks.{sum(blocks[:3]) - 1}.branch.a.conv.weight"]
        size = "R101_8x8" if last.shape[2] > 1 else "R101_16x8"
    size = hints.get("size", size)
    if not hints.keys() & {"size", "alpha"}:
        notes.append(
            f"a slow pathway of {size.partition('_')[2]} assumed, from the lateral kernels: --alpha says otherwise"
        )
    width, thin = (len(state[f"encoder.{path}.stem.0.conv.weight"]) for path in ("slow", "fast"))
    flags: dict[str, Any] = {"size": size, "width": width, "beta": width // thin, "lateral": lateral}
    if _nonlocal_places(state, "encoder.slow.", blocks):
        flags["similarity"] = hints.get("similarity", "dot")
    return "slowfast", flags, notes


def _x3d(state: State, depths: tuple[int, ...], hints: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """The factors whose network has these shapes: a published size's, or those that the widths say."""
    from unveil.recipes.x3d import BLOCKS, CHANNELS, SIZES, rounded

    ends = [sum(depths[: i + 1]) - 1 for i in range(len(depths))]
    last = [state[f"encoder.blocks.{end}.branch.c.conv.weight"] for end in ends]
    inner, widths = [weight.shape[1] for weight in last], [len(weight) for weight in last]
    widths = [len(state["encoder.stem.0.weight"]), *widths]

    def fits(width: float, divisor: int) -> bool:
        return [rounded(width * channels, divisor) for channels in CHANNELS] == widths

    depth = next(
        (of.depth for of in SIZES.values() if tuple(-int(-of.depth * n // 1) for n in BLOCKS) == depths),
        depths[2] / BLOCKS[2],
    )
    width = next((of.width for of in SIZES.values() for k in (8, 1) if fits(of.width, k)), widths[2] / CHANNELS[2])
    divisor = next((k for k in (8, 1) if fits(width, k)), None)
    if divisor is None:
        raise UserError(f"No X3D has widths of {', '.join(map(str, widths))}.")
    bottleneck = 2.25 if [int(2.25 * w) for w in widths[1:]] == inner else inner[-1] / widths[-1]
    named = [name for name, of in SIZES.items() if (of.width, of.bottleneck, of.depth) == (width, bottleneck, depth)]
    # XS, S and M are one network on clips of different sizes.
    size = hints.get("size", "M" if "M" in named or not named else named[0])
    notes = (
        [] if len(named) < 2 or "size" in hints else [f"size {size} assumed, whose weights {', '.join(named)} share"]
    )
    flags: dict[str, Any] = {"size": size, "width": width, "bottleneck": bottleneck, "depth": depth, "divisor": divisor}
    flags["norm_first"] = "encoder.blocks.0.shortcut.norm.weight" in state
    if "head.hidden.weight" in state:
        flags["head_width"] = len(state["head.hidden.weight"])
    return "x3d", flags, notes
