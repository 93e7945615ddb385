"""Hide a part of the signal and predict it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unveil.encoders import Encoder
from unveil.losses import mse, mse_of_linear
from unveil.masking import Mask, Masker, PlacedMasker, draw
from unveil.objectives.objective import Objective
from unveil.targets import Drawable, Pixels, Target
from unveil.tokens import Tokens, refine


class Reconstruction(NamedTuple):
    """Signals of one shape [B, C, *S] in normalised units, for looking at; where a target predicts only some frames, those.
    Clouds of points [B, 3, N] may have each another number of points.

    Attributes:
        input: what was to be seen; of sound its filter bank [B, 1, T, F].
        masked: the same with its masked patches at zero, the mean colour; None where nothing was masked.
        predicted: the same with its masked patches predicted.
        wanted: the same with its masked patches drawn as they should have been predicted, where that is not the input itself.
    """

    input: Tensor
    masked: Tensor | None
    predicted: Tensor
    wanted: Tensor | None = None


class Masked(Objective):
    """What hides a part of the signal: an encoder that sees the rest, a decoder, and who draws the mask.

    Args:
        key: of the signal in the batch.
        encoder: its property `masked` decides whether masked tokens are dropped or replaced.
        decoder: `(tokens, coords) → predictions`. With `head_apart`, `(tokens, coords, read=False)` gives the features from which its
            linear layer `head` makes them.
        masker: draws the mask of one sample on the encoder's `mask_grid`.
    """

    def __init__(self, key: str, encoder: Encoder, decoder: nn.Module, masker: Masker | PlacedMasker):
        super().__init__()
        self.key = key
        self.encoder = encoder
        self.decoder = decoder
        self.masker = masker

    @property
    def towers(self) -> dict[str, nn.Module]:
        return {self.key: self.encoder}

    def masked(self, batch: dict[str, Tensor]) -> Mask:
        """The mask of each sample, drawn from its seed."""
        x = batch[self.key]
        places = self.encoder.places(x) if isinstance(self.masker, PlacedMasker) else None
        return draw(self.masker, self.encoder.mask_grid(x), batch["seed"], places).to(x.device)

    def prepared(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with what the encoder cuts and the target predicts in the signal's place: of sound, its filter bank."""
        return batch | {self.key: self.encoder.prepared(batch[self.key])}


class MaskedAutoencoder(Masked):
    """Encode what is visible, predict what is masked (MAE, MAE-ST, VideoMAE; with other parts BEiT, MaskFeat).

    Args:
        key, encoder, decoder, masker: see `Masked`.
        target: `(batch, grid, indices) → what is to be predicted`, asked for on the grid of the encoder's output. One
            that has weights (a teacher, a tokenizer) is a module, so that it moves and is saved with the objective.
        loss: `(prediction, target) → scalar`.
    """

    shows = (
        "What was there, what the encoder was shown of it, and what the decoder guessed. Visible patches are copied into the last "
        "row. Where a recipe predicts normalised patches, each is drawn with the true patch's mean and contrast."
    )

    def __init__(
        self,
        key: str,
        encoder: Encoder,
        decoder: nn.Module,
        masker: Masker | PlacedMasker,
        target: Target,
        loss: Callable[[Tensor, Tensor], Tensor],
    ):
        super().__init__(key, encoder, decoder, masker)
        self.target = target
        self.loss = loss

    def extra_repr(self) -> str:
        return f"{self.key!r}, masker={self.masker!r}, target={self.target!r}"

    @property
    def drawable(self) -> bool:
        """Whether `reconstruct` has something to draw."""
        return isinstance(self.target, Drawable)

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the signal and `seed` → {"loss"}."""
        batch = self.prepared(batch)
        mask = self.masked(batch) if mask is None else mask
        head = self._head_in_pieces()
        if head is None:
            prediction, grid, indices = self.predict(batch, mask)
            return {"loss": self.loss(prediction, self.target(batch, grid, indices))}
        tokens, indices = self._encoded(batch, mask)
        features = self.decoder(tokens, tokens.at(indices), read=False)

        def target(samples: slice) -> Tensor:
            return self.target({key: x[samples] for key, x in batch.items()}, tokens.grid, indices[samples])

        return {"loss": mse_of_linear(features, head, target)}

    def predict(self, batch: dict[str, Tensor], mask: Mask) -> tuple[Tensor, tuple[int, ...], Tensor]:
        """Predictions [B, Nm, P], the grid they lie on, and where on it [B, Nm]."""
        tokens, indices = self._encoded(batch, mask)
        return self.decoder(tokens, tokens.at(indices)), tokens.grid, indices

    def _encoded(self, batch: dict[str, Tensor], mask: Mask) -> tuple[Tokens, Tensor]:
        """The encoder's tokens, and where on their grid to predict [B, Nm]."""
        x = batch[self.key]
        tokens = self.encoder(x, mask)
        return tokens, refine(mask.masked, self.encoder.mask_grid(x), tokens.grid)

    def _head_in_pieces(self) -> nn.Linear | None:
        """The layer whose predictions need not be in memory all at once: pixels are cut out sample by sample, and a mean of
        squares may be computed so. None where they have to be, or where something listens to that layer."""
        head = self.decoder.head if getattr(self.decoder, "head_apart", False) else None
        if torch.compiler.is_compiling() or type(head) is not nn.Linear:
            return None
        if self.loss is not mse or not isinstance(self.target, Pixels):
            return None
        listened = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks
        return None if listened else head

    def reconstruct(self, batch: dict[str, Tensor], mask: Mask | None = None) -> Reconstruction:
        """Pictures of input, mask and prediction.

        Raises:
            TypeError: what is predicted cannot be drawn.
        """
        if not isinstance(self.target, Drawable):
            raise TypeError(f"{self.target!r} cannot be drawn")
        batch = self.prepared(batch)
        mask = self.masked(batch) if mask is None else mask
        return painted(self.target, batch, *self.predict(batch, mask))


def painted(
    target: Drawable, batch: dict[str, Tensor], prediction: Tensor, grid: tuple[int, ...], indices: Tensor
) -> Reconstruction:
    """Pictures of the signal that a target looks at, its masked patches at zero, and predicted.

    Args:
        target: of the stream.
        batch: with the signal.
        prediction: [B, Nm, P].
        grid: on which it lies.
        indices: where, [B, Nm].
    """
    signal = target.signal(batch, grid)
    patches = target.patchify(signal).x
    drawn = [target.picture(prediction.float(), batch, grid, indices)]
    if not target.exact:
        drawn.append(target.picture(target(batch, grid, indices), batch, grid, indices))
    where = indices[..., None].expand(-1, -1, patches.shape[-1])
    filled = [patches.scatter(1, where, values.to(patches.dtype)) for values in (torch.zeros_like(drawn[0]), *drawn)]
    return Reconstruction(signal, *(target.patchify.join(x, grid) for x in filled))
