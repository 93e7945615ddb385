"""Learn from labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unveil.encoders import Encoder, shown
from unveil.masking import Mask, Masker, draw
from unveil.objectives.objective import Objective


class Supervised(Objective):
    """Encode, answer, compare with the label.

    Args:
        key: of the signal in the batch; of an encoder of several streams its own name, for it takes those by their keys.
        encoder: signal → tokens; its `pool` is handed to the head.
        head: `(tokens, pool) → logits`.
        loss: `(logits, label) → scalar`, taking `weight=` where classes are to be weighted.
        masker: which tokens the encoder does not see in training, drawn from the sample's seed; None where it sees all.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        key: str,
        encoder: Encoder,
        head: nn.Module,
        loss: Callable[..., Tensor],
        masker: Masker | None = None,
    ):
        super().__init__()
        self.key = key
        self.encoder = encoder
        self.head = head
        self.loss = loss
        self.masker = masker
        self.register_buffer("class_weights", None, persistent=False)

    def extra_repr(self) -> str:
        return repr(self.key) if self.masker is None else f"{self.key!r}, masker={self.masker!r}"

    @property
    def towers(self) -> dict[str, nn.Module]:
        return {self.key: self.encoder}

    def weigh(self, weights: Tensor) -> None:
        """Weight the classes in the loss from now on: [classes]. Not part of the saved state."""
        self.class_weights = weights

    def logits(self, batch: dict[str, Tensor], mask: Mask | None = None) -> Tensor:
        """Batch → logits [B, classes], of all tokens or of those that the mask leaves."""
        return self.head(self.encoder(shown(self.encoder, batch, self.key), mask), self.encoder.pool)

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the signal, `label` and `seed` → {"loss"}, and {"top1"} where labels are class indices."""
        if mask is None and self.masker is not None and self.training:
            x = batch[self.key]
            mask = draw(self.masker, self.encoder.mask_grid(x), batch["seed"]).to(x.device)
        logits, label = self.logits(batch, mask), batch["label"]
        weight = {} if self.class_weights is None else {"weight": self.class_weights}
        answer = {"loss": self.loss(logits, label, **weight)}
        if not label.is_floating_point():
            answer["top1"] = (logits.detach().argmax(-1) == label).float().mean()
        return answer
