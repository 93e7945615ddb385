"""What every encoder offers, whatever its signal and its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unveil.errors import UserError
from unveil.masking import Mask
from unveil.tokens import Tokens, coordinates


class Encoder(nn.Module):
    """Signal → features.

    Attributes:
        width: of the pooled features.
        depth: number of layers.
        checkpointing: recompute activations in the backward pass.
    """

    width: int
    depth: int
    checkpointing: bool = False

    @property
    def streams(self) -> tuple[str, ...]:
        """Keys of the streams that `forward` takes as a mapping; () where it takes one tensor."""
        return ()

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """The grid on which masks of this signal are drawn."""
        raise NotImplementedError

    def prepared(self, x: Tensor) -> Tensor:
        """What is cut into tokens, and what an objective predicts: the filter bank of a waveform, elsewhere the signal itself.

        An objective that needs it too prepares it once and hands it over in the signal's place.
        """
        return x

    def restored(self, x: Tensor) -> Tensor:
        """The signal that what was `prepared` stands for, for people: a waveform with about this filter bank; elsewhere itself."""
        return x

    def places(self, x: Tensor) -> Tensor:
        """Where the tokens of this signal lie [B, N, K], for masks that depend on it."""
        return coordinates(self.mask_grid(x), x.device).expand(x.shape[0], -1, -1)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """Normalised signal → tokens, of the last stage where there are several (see `Tokens.stages`).

        With a mask, what is masked is dropped or replaced by a learned token: the encoder's own property. `layer` stops
        early (1 … depth, negative from the end).
        """
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        """What `forward` returned → one vector for each sample [B, width]."""
        raise NotImplementedError

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name in this module: 0 embedding, 1 … depth, depth + 1 after them."""
        raise NotImplementedError

    def _stop(self, layer: int | None) -> int:
        """How many layers `forward` goes through.

        Raises:
            UserError: there is no such layer.
        """
        if layer is None:
            return self.depth
        stop = layer if layer > 0 else self.depth + 1 + layer
        if layer == 0 or not 1 <= stop <= self.depth:
            raise UserError(f"This encoder has layers 1 to {self.depth} (or -1 to -{self.depth}), not {layer}.")
        return stop


def hide(x: Tensor, indices: Tensor, token: Tensor) -> Tensor:
    """Put the mask token [1, 1, D] in the place of the tokens at `indices` [B, n] of x [B, N, D]."""
    where = indices[..., None].expand(-1, -1, x.shape[-1])
    return x.scatter(1, where, token.to(x.dtype).expand(where.shape))


def shown(encoder: nn.Module, batch: Mapping[str, Tensor], key: str) -> Any:
    """What the tower `key` takes of a batch: the tensor of its stream, or, of several, those by their keys."""
    streams = getattr(encoder, "streams", ())
    return {name: batch[name] for name in streams} if streams else batch[key]


def streams_of(encoder: nn.Module, key: str) -> tuple[str, ...]:
    """The keys of the streams that the tower `key` looks at."""
    return tuple(getattr(encoder, "streams", ())) or (key,)
