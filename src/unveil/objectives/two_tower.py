"""Two signals of one thing agree: text beside images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import Encoder
from unveil.encoders.text import last_word
from unveil.losses import contrast
from unveil.masking import Mask, Masker, TextMasker, draw, draw_words
from unveil.objectives.objective import Objective

FIRST_SCALE = math.log(1 / 0.07)
LARGEST_SCALE = math.log(100)


class TwoTower(Objective):
    """Each tower's features are projected into one space, where a sample's two lie closer than those of different samples
    (CLIP, 2103.00020; with masks FLIP, 2212.00794).

    The scale of the logits is learned, from 1 / 0.07 and never above 100.

    Args:
        image, text: the encoders.
        width: of the shared space.
        masker: leaves out a part of each image in training; None for none (CLIP). Features are taken without masks.
        text_masker: the same of each text.
        bias: the projections of image and text have one.
    """

    contrasts = True
    """The samples of a micro-batch, of all processes, are one another's negatives."""

    def __init__(
        self,
        image: Encoder,
        text: Encoder,
        width: int,
        masker: Masker | None = None,
        text_masker: TextMasker | None = None,
        bias: tuple[bool, bool] = (False, False),
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.projections = nn.ModuleDict(
            {
                key: nn.Linear(tower.width, width, bias=own)
                for (key, tower), own in zip(self.towers.items(), bias, strict=True)
            }
        )
        self.logit_scale = nn.Parameter(torch.full((1,), FIRST_SCALE))
        self.masker = masker
        self.text_masker = text_masker
        for key, tower in self.towers.items():
            nn.init.normal_(self.projections[key].get_parameter("weight"), std=tower.width**-0.5)
            if self.projections[key].bias is not None:
                nn.init.zeros_(self.projections[key].get_parameter("bias"))

    def extra_repr(self) -> str:
        return f"masker={self.masker!r}, text_masker={self.text_masker!r}"

    @property
    def towers(self) -> dict[str, Any]:
        return {"image": self.image, "text": self.text}

    def masked(self, batch: Mapping[str, Tensor]) -> dict[str, Mask]:
        """The masks of those towers that have any, drawn from each sample's seed; the text's are other ones than the image's."""
        masks = {}
        if self.masker is not None:
            masks["image"] = draw(self.masker, self.image.mask_grid(batch["image"]), batch["seed"])
        if self.text_masker is not None:
            lengths = last_word(batch["text"]) + 1
            masks["text"] = draw_words(self.text_masker, lengths, batch["text"].shape[1], batch["seed"] + 1)
        return {key: mask.to(batch[key].device) for key, mask in masks.items()}

    def forward(self, batch: dict[str, Tensor], mask: Any = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with `image` [B, C, H, W], `text` int64 [B, L] and `seed` → {"loss", "scale"}.

        Args:
            batch: of pairs.
            mask: what `masked` gives, {"image": Mask, "text": Mask}; drawn when None.
            state: None.
        """
        masks = self.masked(batch) if mask is None else mask
        image, text = (self.embed(key, batch[key], masks.get(key)) for key in self.towers)
        scale = self.logit_scale.exp()
        loss = (contrast(image, text, scale) + contrast(text, image, scale)) / 2
        return {"loss": loss, "scale": scale.detach().squeeze(0)}

    def features(self, key: str, x: Tensor, mask: Mask | None = None) -> Tensor:
        """What a tower makes of its signal, projected, not yet normalised [B, width].

        Args:
            key: "image" or "text".
            x: images [B, C, H, W] or token ids int64 [B, L].
            mask: what the tower may see; everything when None.
        """
        tower = self.towers[key]
        return self.projections[key](tower.pool(tower(x, mask)))

    def embed(self, key: str, x: Tensor, mask: Mask | None = None) -> Tensor:
        """The same, of length one, in float32."""
        return functional.normalize(self.features(key, x, mask).float(), dim=1)

    def after_step(self, progress: float) -> None:
        with torch.no_grad():
            self.logit_scale.clamp_(max=LARGEST_SCALE)
