"""Frozen features: encoder, batches → one vector a sample, or all its tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unveil.encoders import shown, streams_of
from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.tokens import Tokens

Pool = Literal["mean", "max", "class", "encoder"]
POOLS: tuple[str, ...] = ("mean", "max", "class", "encoder")

MEMORY_LIMIT = 4 * 2**30
"""Bytes of tokens held in memory by `extract_tokens`; what is more lies in a temporary file."""


class Features(NamedTuple):
    """What a frozen encoder says of n samples.

    Attributes:
        x: float32 [n,D]; tokens are float16 [n,V,N,D] (V views).
        labels: int64 [n] (-1 for none) or multi-hot float32 [n,classes]; None where the data have none at all.
        indices: int64 [n], rows of the manifest.
        bad: files that could not be read, (path, error); they have no row here.
    """

    x: Tensor
    labels: Tensor | None
    indices: Tensor
    bad: Sequence[tuple[str, str]] = ()

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Features and labels of the samples that have a label; `UserError` where none has."""
        if self.labels is None or not (keep := has_label(self.labels)).any():
            raise UserError(
                "the data have no labels, and this evaluation needs them: put the files into one folder per class, "
                "or beside them a labels.csv with the columns path,label"
            )
        # Tokens may lie in a file: choosing rows would read all of it.
        return (self.x, self.labels) if keep.all() else (self.x[keep], self.labels[keep])


def has_label(labels: Tensor) -> Tensor:
    """Which samples have a label, bool [n]: -1 marks those without; a multi-hot label may well be all zeros."""
    return labels >= 0 if labels.ndim == 1 else torch.ones(len(labels), dtype=torch.bool)


def pooled(encoder: nn.Module, tokens: Tokens, pool: str = "mean") -> Tensor:
    """One vector a sample, [B,D].

    Args:
        encoder: whose tokens they are; asked only when `pool` is "encoder".
        tokens: what its `forward` returned.
        pool: "mean" or "max" over the (valid) tokens, "class" for the first class token, "encoder" for what the
            encoder itself does for a classifier.

    Raises:
        UserError: no such pooling, or no class token to take.
    """
    x, valid = tokens.x, tokens.valid
    if pool == "encoder":
        return encoder.pool(tokens)  # pyright: ignore[reportCallIssue]
    if pool == "class":
        if tokens.prefix is None or tokens.prefix.shape[1] == 0:
            raise UserError('--pool class: this encoder has no class token; use "mean", "max" or "encoder"')
        return tokens.prefix[:, 0]
    if pool == "mean":
        return tokens.mean()
    if pool == "max":
        return (x if valid is None else x.masked_fill(~valid.unsqueeze(-1), float("-inf"))).amax(1)
    raise UserError(f"--pool {pool}: no such pooling; one of {', '.join(POOLS)}")


def extract(
    encoder: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    key: str,
    device: torch.device | str,
    layer: int | None = None,
    pool: str = "mean",
) -> Features:
    """Features of every sample, the mean over its views.

    Args:
        encoder: normalised signal → `Tokens`; put into evaluation mode here, and back.
        batches: of the evaluation loader: the encoder's streams are [B,V,…] with V views of each sample.
        key: of the tower, and of its stream in the batch where it looks at only one.
        device: where the encoder is.
        layer: after which block; None for the encoder's output.
        pool: see `pooled`.

    Returns:
        Features: float32 [n,D], on the CPU.
    """
    streams = streams_of(encoder, key)

    def take(look: Mapping[str, Tensor]) -> Tensor:
        return pooled(encoder, encoder(shown(encoder, look, key), layer=layer), pool)

    return vectors(encoder, take, batches, streams, device)


# Not inference_mode, here and below: a run is measured while it trains, and what a network caches must stay usable.
@torch.no_grad()
def vectors(
    module: nn.Module,
    take: Callable[[Mapping[str, Tensor]], Tensor],
    batches: Iterable[Mapping[str, Any]],
    streams: Sequence[str],
    device: torch.device | str,
) -> Features:
    """One vector for every sample, the mean over its views.

    Args:
        module: that `take` asks; put into evaluation mode here, and back.
        take: normalised streams {key: [B,…]} of one view → [B,D].
        batches, device: as for `extract`.
        streams: keys of what is taken of a batch.
    """
    rows, kept = [], _Labels()
    with evaluating(module):
        for batch in batches:
            views = [take(look).float().cpu() for look in looks(batch, streams, device)]
            rows.append(torch.stack(views).sum(0) / len(views))
            kept.add(batch, len(views[0]))
    if not rows:
        raise UserError("no samples to take features of: the data are empty")
    return Features(torch.cat(rows), kept.labels(), kept.indices(), kept.bad)


@torch.no_grad()
def extract_tokens(
    encoder: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    key: str,
    device: torch.device | str,
    layer: int | None = None,
    limit: int = MEMORY_LIMIT,
) -> Features:
    """Every token of every view, class tokens first, for probes that learn how to pool.

    A ViT-B on 16 × 224² gives 2.4 MB a clip: beyond `limit` bytes the tokens are written to a temporary file (in
    TMPDIR; gone with the tensor) and read from there.

    Args:
        encoder, batches, key, device, layer: as for `extract`.
        limit: bytes kept in memory.

    Returns:
        Features: float16 [n,V,N,D], on the CPU, possibly backed by a file.

    Raises:
        UserError: no samples, no space for the file, or numbers beyond float16.
    """
    store = _Tokens(limit)
    kept = _Labels()
    with evaluating(encoder), store:
        for batch in batches:
            tokens = [
                encoder(shown(encoder, look, key), layer=layer).sequence().half().cpu()
                for look in looks(batch, streams_of(encoder, key), device)
            ]
            x = torch.stack(tokens, 1)
            if not torch.isfinite(x).all():
                raise UserError(f"--layer {layer}: the features are not finite in half precision; choose another layer")
            store.add(x)
            kept.add(batch, len(x))
        return Features(store.tensor(), kept.labels(), kept.indices(), kept.bad)


def looks(batch: Mapping[str, Any], streams: Sequence[str], device: torch.device | str) -> Iterator[dict[str, Tensor]]:
    """The views of a batch of the evaluation loader, whose streams are [B,V,…], one by one: the memory of one, however many."""
    for key in streams:
        if key not in batch:
            raise KeyError(f"the batch has no {key!r}, only {', '.join(batch)}")
    for v in range(batch[streams[0]].shape[1]):
        yield {key: batch[key][:, v].to(device, non_blocking=True) for key in streams}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`with evaluating(module):` evaluation mode inside, the modes of all its parts as they were after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class _Labels:
    """Labels, indices and bad files as the batches bring them."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._indices: list[Tensor] = []
        self._count = 0
        self.bad: list[tuple[str, str]] = []

    def add(self, batch: Mapping[str, Any], size: int) -> None:
        if "label" in batch:
            self._labels.append(batch["label"].cpu())
        self._indices.append(
            batch["index"].cpu() if "index" in batch else torch.arange(self._count, self._count + size)
        )
        self._count += size
        self.bad += batch.get("bad", [])

    def labels(self) -> Tensor | None:
        return torch.cat(self._labels) if self._labels else None

    def indices(self) -> Tensor:
        return torch.cat(self._indices)


class _Tokens:
    """float16 tensors one after the other: in memory up to `limit` bytes, in a temporary file beyond."""

    def __init__(self, limit: int):
        self.limit, self.count, self.size = limit, 0, 0
        self.chunks: list[Tensor] = []
        self.file: Any = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()  # what was mapped stays: the map holds the file by itself

    def add(self, x: Tensor) -> None:
        if self.count and x.shape[1:] != self.shape:
            raise UserError(
                f"samples of {list(self.shape[:2])} and of {list(x.shape[1:3])} views and tokens: an attentive probe wants all of "
                "one kind. Give images or clips (--data), or use --by linear or knn, which take one vector a sample."
            )
        self.count, self.size, self.shape = self.count + len(x), self.size + x.nbytes, x.shape[1:]
        self.chunks.append(x)
        if self.size <= self.limit:
            return
        try:
            self.file = self.file or tempfile.TemporaryFile(prefix="unveil-tokens-")  # noqa: SIM115 (closed on exit)
            for chunk in self.chunks:
                self.file.write(chunk.numpy().tobytes())
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"no space for the tokens in {tempfile.gettempdir()} ({error}): set TMPDIR to a larger disk, "
                "evaluate on fewer files, or use --by linear, which keeps one vector a sample"
            ) from error
        self.chunks.clear()

    def tensor(self) -> Tensor:
        if not self.count:
            raise UserError("no samples to take features of: the data are empty")
        if self.file is None:
            return torch.cat(self.chunks)
        # Copy-on-write: PyTorch does not wrap read-only memory without a warning, and nobody writes.
        return torch.from_numpy(np.memmap(self.file, dtype=np.float16, mode="c", shape=(self.count, *self.shape)))
