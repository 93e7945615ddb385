"""Signals of several streams: picture and sound of one clip. A signal of one stream is the special case.

A stream is a signal of its own, with a key under which it lies in samples and batches. What a signal of several reads is a
mapping, stream by stream; everywhere else a sample is such a mapping, however many streams there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from unveil.data import shared_memory
from unveil.data.signal import Raw, Signal
from unveil.data.signals import to_input
from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.recipe import Data


@runtime_checkable
class SeveralStreams(Protocol):
    """A signal whose samples are of several streams, cut at the same moments of the file."""

    @property
    def streams(self) -> Mapping[str, Signal]:
        """Each stream as a signal of its own, by its key."""
        ...


def streams_in(signal: Signal) -> dict[str, Signal]:
    """The streams of a signal, by their keys: those it has, or itself."""
    return dict(signal.streams) if isinstance(signal, SeveralStreams) else {signal.key: signal}


def divided(signal: Signal, x: Raw) -> dict[str, Tensor]:
    """What a signal has read, stream by stream."""
    return {signal.key: x} if isinstance(x, Tensor) else dict(x)


def joined(signal: Signal, x: Mapping[str, Tensor]) -> Raw:
    """The inverse of `divided`."""
    return x[signal.key] if set(x) == {signal.key} else x


def on_pictures(signal: Signal, x: Raw, change: Callable[[Tensor], Tensor]) -> Raw:
    """A sample with the recipe's transform: of one stream that one is changed, of several those that are pictures."""
    if isinstance(x, Tensor):
        return change(x)
    streams = streams_in(signal)
    return {key: change(part) if streams[key].pictures else part for key, part in x.items()}


def prepared(data: Data, x: Raw) -> dict[str, Tensor]:
    """A sample as the signal reads it → its streams as the network takes them, with the transforms of evaluation."""
    return as_input(data, transformed(data, x))


def transformed(data: Data, x: Raw) -> dict[str, Tensor]:
    """A sample as the signal reads it → its streams as the transforms of evaluation leave them."""
    for transform in data.evaluation:
        x = on_pictures(data.signal, x, transform)
    return divided(data.signal, x)


def as_input(data: Data, x: Raw, lead: int = 0) -> dict[str, Tensor]:
    """Transformed samples → their streams as a network takes them: float32, normalised, channels first.

    Args:
        data: of the recipe.
        x: one sample, or several that are stacked.
        lead: how many axes there are before the sample's own.
    """
    return {key: to_input(part, data.mean, data.std, lead) for key, part in divided(data.signal, x).items()}


def normalised(data: Data, x: Mapping[str, Any], batched: bool = True) -> dict[str, Any]:
    """Training samples whose pictures are still bytes → as the network takes them; what is float32 already, and what is no stream
    of the signal, stays as it is.

    Args:
        data: of the recipe.
        x: of one sample or of a batch; uint8 [B,T,C,H,W], [B,C,H,W], with several views [B,V,…].
        batched: whether it is of a batch.

    Returns:
        The same with float32 [B,C,T,H,W], [B,C,H,W], [B,V,…], on the device where they were.
    """
    lead = int(batched) + bool(data.views)
    return {**x, **{key: to_input(x[key], data.mean, data.std, lead) for key in streams_in(data.signal) if key in x}}


def crops_of(signal: Signal, x: Raw, crops: Callable[[Tensor], list[Tensor]]) -> list[Raw]:
    """The evaluation crops of a sample; a stream without pictures comes with each of them."""
    if isinstance(x, Tensor):
        return list(crops(x))
    streams = streams_in(signal)
    cut = {key: crops(part) for key, part in x.items() if streams[key].pictures}
    return [{**x, **dict(zip(cut, parts, strict=True))} for parts in zip(*cut.values(), strict=True)]


def narrowed(data: Data, key: str) -> Data:
    """How files become samples of some streams alone; as they do, for the key of the signal itself.

    Transforms are those of pictures: a stream that has none is read as it is.

    Raises:
        UserError: the signal has no such stream.
    """
    if key == data.signal.key:
        return data
    streams = streams_in(data.signal)
    if key not in streams:
        raise UserError(f"--use {key}: use {', '.join([*streams, data.signal.key])}.")
    if streams[key].pictures:
        return replace(data, signal=streams[key])
    return replace(data, signal=streams[key], transform=(), evaluation=(), views=(), erase=0.0, crops=1)


def filling(data: Data, missing: str) -> Data:
    """The same, with another answer to what becomes of files that lack a stream: "drop" or "blank".

    Raises:
        UserError: the signal has one stream, or there is no such answer.
    """
    signal: Any = data.signal
    if not hasattr(signal, "missing"):
        raise UserError(
            f"--missing {missing}: only of runs that see and hear (avmae, mavil); this one reads {signal.key} alone."
        )
    if missing not in ("drop", "blank"):
        raise UserError(f"--missing {missing}: use drop or blank.")
    return replace(data, signal=replace(signal, missing=missing))


def stacked(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Samples → a batch, stream by stream."""
    return {key: stack([sample[key] for sample in samples]) for key in samples[0]}


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """As `torch.stack`, each laid out in memory as the first one is; of a worker in the memory that it shares."""
    first = tensors[0]
    # Pictures are resized with their channels last: copied as they lie, they are copied in long runs.
    strides = torch.empty_like(first, device="meta").stride()
    out = shared_memory.empty((len(tensors), *first.shape), (first.numel(), *strides), first.dtype)
    for place, tensor in zip(out, tensors, strict=True):
        place.copy_(tensor)
    return out


def shapes_of(x: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each stream."""
    return {key: tuple(part.shape) for key, part in x.items()}
