"""Hide most of a cloud of points and predict all of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unveil.decoders import Completed, FoldingDecoder
from unveil.encoders import Encoder
from unveil.losses import chamfer
from unveil.masking import Mask, Masker, PlacedMasker
from unveil.objectives.masked import Masked, Reconstruction
from unveil.tokens import Tokens


class Completion(Masked):
    """Encode the visible groups of points; predict the centres of all groups, and the whole cloud (MAE3D).

    The loss is the Chamfer distance of the centres, and `weight` of that of the points: of each sample the sum over its points.

    Args:
        key, encoder, masker: see `Masked`; the encoder's tokens are groups of points.
        decoder: gives a `Completed` cloud.
        weight: of the points' distance.
    """

    drawable = True
    shows = (
        "What was there, what the encoder was shown of it, and what the decoder guessed, which is the whole cloud. Seen from the "
        "right, from the front and from above; what is near is dark."
    )

    def __init__(
        self,
        key: str,
        encoder: Encoder,
        decoder: FoldingDecoder,
        masker: Masker | PlacedMasker,
        weight: float = 0.1,
    ):
        super().__init__(key, encoder, decoder, masker)
        self.weight = weight

    def extra_repr(self) -> str:
        return f"{self.key!r}, masker={self.masker!r}, weight={self.weight:g}"

    def complete(self, batch: dict[str, Tensor], mask: Mask) -> tuple[Completed, Tokens]:
        """The predicted clouds, and the tokens that they were made of."""
        tokens = self.encoder(batch[self.key], mask)
        return self.decoder(tokens, tokens.at(mask.masked)), tokens

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with clouds [B, 3, N] and `seed` → {"loss", "loss_centres", "loss_points"}."""
        mask = self.masked(batch) if mask is None else mask
        found, tokens = self.complete(batch, mask)
        assert tokens.places is not None
        centres = chamfer(found.centres, tokens.places, over="sum")
        points = chamfer(found.points, batch[self.key].transpose(1, 2), over="sum")
        loss = centres + self.weight * points
        return {"loss": loss, "loss_centres": centres.detach(), "loss_points": points.detach()}

    def reconstruct(self, batch: dict[str, Tensor], mask: Mask | None = None) -> Reconstruction:
        """Clouds [B, 3, N]: what there was, what of it was seen, and what was predicted."""
        mask = self.masked(batch) if mask is None else mask
        x = batch[self.key]
        found, _ = self.complete(batch, mask)
        seen = self.encoder.patchify(x, mask.visible).x  # pyright: ignore[reportCallIssue]
        return Reconstruction(x, seen.unflatten(2, (-1, 3)).flatten(1, 2).transpose(1, 2), found.points.transpose(1, 2))
