"""Several streams of one sample: hide a part of each and predict it from what is left of all; and tell samples apart by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import Encoder, Fusion
from unveil.errors import UserError
from unveil.losses import contrast
from unveil.masking import Mask, Masker, draw
from unveil.objectives.masked import Reconstruction, painted
from unveil.objectives.objective import Objective
from unveil.targets import Drawable, Target
from unveil.tokens import Tokens

AGAIN = " again"
"""Ends the name of the second mask of a stream."""


class Asked(NamedTuple):
    """Where a stream is predicted: the grid, and flat indices [B, n] into it."""

    grid: tuple[int, ...]
    indices: Tensor


class Targets(Protocol):
    """What is to be predicted of every stream, only where it is asked for."""

    def __call__(self, batch: Mapping[str, Tensor], asked: Mapping[str, Asked]) -> dict[str, Tensor]:
        """Batch and places → values [B, n, P], stream by stream."""
        ...


class Each:
    """A target of its own for each stream.

    Args:
        targets: by the streams' keys.
    """

    def __init__(self, **targets: Target):
        self.targets = targets

    def __repr__(self) -> str:
        return f"Each({', '.join(map(repr, self.targets.values()))})"

    def __call__(self, batch: Mapping[str, Tensor], asked: Mapping[str, Asked]) -> dict[str, Tensor]:
        return {key: self.targets[key](batch, where.grid, where.indices) for key, where in asked.items()}


class FusedAutoencoder(Objective):
    """Encode what is visible of every stream, let it meet, predict what is masked of each (Audiovisual MAE; stage 1 of MAViL).

    Args:
        encoder: of all streams. Its towers are each stream's alone and, as "both", all of them.
        decoder: `(stream, tokens, coords) → predictions`, of one stream's tokens after they have met the others.
        maskers: draw the mask of each stream, on its own encoder's grid.
        targets: what is predicted; `Each` for one target a stream.
        loss: `(prediction, target) → scalar`.
        weights: of the streams' losses, which are summed.
        alone: whether a stream's tower goes through the joint blocks by itself (Audiovisual MAE), or is its own encoder (MAViL).
    """

    shows = (
        "What was there of every stream, what the encoders were shown of it, and what the decoder guessed. Visible patches are copied "
        "into the last row. Where a recipe predicts normalised patches, each is drawn with the true patch's mean and contrast."
    )

    def __init__(
        self,
        encoder: Fusion,
        decoder: nn.Module,
        maskers: Mapping[str, Masker],
        targets: Targets,
        loss: Callable[[Tensor, Tensor], Tensor],
        weights: Mapping[str, float],
        alone: bool = True,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.maskers = dict(maskers)
        self.targets = targets
        self.loss = loss
        self.weights = dict(weights)
        self.alone = alone

    def extra_repr(self) -> str:
        told = ", ".join(f"{key}: {masker!r} × {self.weights[key]:g}" for key, masker in self.maskers.items())
        return f"{told}, targets={self.targets!r}"

    @property
    def towers(self) -> dict[str, Any]:
        stems = {key: self.encoder.only(key) if self.alone else stem for key, stem in self.encoder.stems.items()}
        return {**stems, "both": self.encoder}

    def prepared(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with what the encoders cut and the targets predict in the streams' places: of sound, its filter bank."""
        stems: Any = self.encoder.stems
        return batch | {key: stems[key].prepared(batch[key]) for key in self.encoder.streams}

    def masked(self, batch: Mapping[str, Tensor]) -> dict[str, Mask]:
        """The mask of each stream, drawn from each sample's seed and the stream's number: no two streams' are alike."""
        return {key: self._drawn(batch, key, number) for number, key in enumerate(self.encoder.streams)}

    def _drawn(self, batch: Mapping[str, Tensor], key: str, number: int) -> Mask:
        stem: Any = self.encoder.stems[key]
        grid = stem.mask_grid(batch[key])
        mask = draw(self.maskers[key], grid, batch["seed"] + number)
        if not mask.visible.shape[1] or not mask.masked.shape[1]:
            count = torch.Size(grid).numel()
            raise UserError(
                f"{self.maskers[key]!r} leaves {mask.visible.shape[1]} of the {key}'s {count} patches visible: choose another "
                "ratio, smaller patches, or longer clips."
            )
        return mask.to(batch[key].device)

    def forward(self, batch: dict[str, Tensor], mask: Any = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the streams and `seed` → {"loss"}, and of each stream {"reconstruction_…"}.

        Args:
            batch: of samples that have all streams.
            mask: what `masked` gives, by the streams' keys; drawn when None.
            state: None.
        """
        batch = self.prepared(batch)
        masks = self.masked(batch) if mask is None else mask
        return self._reconstructed(batch, masks, self.encoder(batch, masks))

    def _reconstructed(self, batch: dict[str, Tensor], masks: Mapping[str, Mask], tokens: Tokens) -> dict[str, Tensor]:
        predictions, asked = self.predict(tokens, masks)
        wanted = self.targets(batch, asked)
        losses = {key: self.loss(predictions[key], wanted[key]) for key in predictions}
        total = torch.stack([self.weights[key] * loss for key, loss in losses.items()]).sum()
        return {"loss": total} | {f"reconstruction_{key}": loss.detach() for key, loss in losses.items()}

    def predict(self, tokens: Tokens, masks: Mapping[str, Mask]) -> tuple[dict[str, Tensor], dict[str, Asked]]:
        """Predictions [B, Nm, P] of each stream, and where they lie."""
        parts = dict(zip(self.encoder.streams, tokens.stages[-1], strict=True))
        asked = {key: Asked(part.grid, masks[key].masked) for key, part in parts.items()}
        return {key: self.decoder(key, part, part.at(asked[key].indices)) for key, part in parts.items()}, asked

    @property
    def drawable(self) -> bool:
        """Whether `reconstruct` has something to draw."""
        return isinstance(self.targets, Each) and all(isinstance(t, Drawable) for t in self.targets.targets.values())

    def reconstruct(self, batch: dict[str, Tensor], mask: Any = None) -> dict[str, Reconstruction]:
        """Pictures of input, mask and prediction, of each stream.

        Raises:
            TypeError: what is predicted cannot be drawn.
        """
        if not isinstance(self.targets, Each):
            raise TypeError(f"{self.targets!r} cannot be drawn")
        batch = self.prepared(batch)
        masks = self.masked(batch) if mask is None else mask
        predictions, asked = self.predict(self.encoder(batch, masks), masks)
        found = {}
        for key, target in self.targets.targets.items():
            if not isinstance(target, Drawable):
                raise TypeError(f"{target!r} cannot be drawn")
            found[key] = painted(target, batch, predictions[key], *asked[key])
        return found


class Contrast(NamedTuple):
    """InfoNCE among the samples of a batch: its temperature, and the weight of its loss; a weight of 0 leaves it out."""

    temperature: float
    weight: float


class AlignedAutoencoder(FusedAutoencoder):
    """A `FusedAutoencoder` whose streams also find one another in a shared space (Huang et al. 2023, MAViL).

    Before the tokens meet, the mean of each stream's visible ones is projected into one space, and made of length one. There
    the streams of a sample lie closer than those of different samples (`inter`), and so do two differently masked views of one
    stream (`intra`). Both losses are the mean over directions; `intra`, over streams as well.

    Args:
        encoder, decoder, maskers, targets, loss, weights: see `FusedAutoencoder`.
        width: of the shared space.
        inter: between streams.
        intra: between views of a stream; the second one costs another pass through the streams' encoders.
    """

    contrasts = True

    def __init__(
        self,
        encoder: Fusion,
        decoder: nn.Module,
        maskers: Mapping[str, Masker],
        targets: Targets,
        loss: Callable[[Tensor, Tensor], Tensor],
        weights: Mapping[str, float],
        width: int,
        inter: Contrast,
        intra: Contrast,
    ):
        super().__init__(encoder, decoder, maskers, targets, loss, weights, alone=False)
        self.projections = nn.ModuleDict({key: nn.Linear(encoder.width, width, bias=False) for key in encoder.streams})
        for projection in self.projections.values():
            nn.init.normal_(projection.get_parameter("weight"), std=encoder.width**-0.5)
        self.inter = inter
        self.intra = intra

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, inter={self.inter}, intra={self.intra}"

    def masked(self, batch: Mapping[str, Tensor]) -> dict[str, Mask]:
        """The masks of all streams, and, where views of one are compared, a second one for each."""
        masks = super().masked(batch)
        if self.intra.weight:
            streams = self.encoder.streams
            masks |= {key + AGAIN: self._drawn(batch, key, len(streams) + i) for i, key in enumerate(streams)}
        return masks

    def forward(self, batch: dict[str, Tensor], mask: Any = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the streams and `seed` → {"loss"}, of each stream {"reconstruction_…"}, and {"inter"}, {"intra"}."""
        batch = self.prepared(batch)
        masks = self.masked(batch) if mask is None else mask
        tokens = self.encoder(batch, masks)
        answer = self._reconstructed(batch, masks, tokens)
        streams = self.encoder.streams
        views = {key: self._projected(key, part) for key, part in zip(streams, tokens.stages[0], strict=True)}
        losses = {}
        if self.inter.weight:
            pairs = [(one, other) for one in streams for other in streams if one != other]
            found = [contrast(views[one], views[other], 1 / self.inter.temperature) for one, other in pairs]
            losses["inter"] = self.inter.weight * torch.stack(found).mean(), torch.stack(found).mean()
        if self.intra.weight:
            found = []
            for key in streams:
                second = self._projected(key, self.encoder.stems[key](batch[key], masks[key + AGAIN]))
                scale = 1 / self.intra.temperature
                found += [contrast(views[key], second, scale), contrast(second, views[key], scale)]
            losses["intra"] = self.intra.weight * torch.stack(found).mean(), torch.stack(found).mean()
        answer["loss"] = torch.stack([answer["loss"], *(weighted for weighted, _ in losses.values())]).sum()
        return answer | {name: plain.detach() for name, (_, plain) in losses.items()}

    def _projected(self, key: str, tokens: Tokens) -> Tensor:
        return functional.normalize(self.projections[key](tokens.mean()).float(), dim=1)

    def features(self, key: str, x: Tensor, mask: Mask | None = None) -> Tensor:
        """What a stream's own encoder makes of it, in the shared space, not yet normalised [B, width].

        Args:
            key: of the stream.
            x: the stream [B, C, *S].
            mask: what its encoder may see; everything when None.
        """
        stem: Encoder = self.encoder.stems[key]  # pyright: ignore[reportAssignmentType]
        return self.projections[key](stem(x, mask).mean())
