"""Codes of the masked patches, as a tokenizer sees them (Bao et al. 2022, BEiT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import VisualTokenizer
from unveil.precision import full_precision


class Codes(nn.Module):
    """One code for each patch: `(batch, grid, indices [B, Nm]) → [B, Nm]` int64.

    The tokenizer looks at the same image, made as small as gives it a code for each patch: a grid of 14 × 14 patches at a
    stride of 8 is 112² pixels of 224². (The release resizes the crop of the file a second time, by other weights; here the
    image of the batch is made smaller, on the device.) It does not learn, and is saved with the objective.

    Args:
        tokenizer: frozen from here on.
        key: of the image in the batch.
        mean, std: of each channel, as the batch is normalised.
        tokenizer_mean, tokenizer_std: as the tokenizer takes its images.
    """

    mean: Tensor
    std: Tensor
    tokenizer_mean: Tensor
    tokenizer_std: Tensor

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        key: str,
        mean: Sequence[float],
        std: Sequence[float],
        tokenizer_mean: Sequence[float],
        tokenizer_std: Sequence[float],
    ):
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        self.key = key
        for name, values in (
            *(("mean", mean), ("std", std)),
            *(("tokenizer_mean", tokenizer_mean), ("tokenizer_std", tokenizer_std)),
        ):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.eval()

    def extra_repr(self) -> str:
        return repr(self.key)

    def train(self, mode: bool = True) -> Self:
        """Stays as it is: what it says is not to change."""
        return super().train(False)

    def look(self, batch: Mapping[str, Tensor], grid: Sequence[int]) -> Tensor:
        """What the tokenizer is shown [B, C, *S], as it takes its images."""
        size = [places * self.tokenizer.encoder.stride for places in grid]
        image = batch[self.key].float() * self.std + self.mean
        if list(image.shape[2:]) != size:
            image = functional.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True)
        return (image.clamp(0, 1) - self.tokenizer_mean) / self.tokenizer_std

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        look = self.look(batch, grid)
        # In float32 whatever the training's precision: near ties would change with the number of bits.
        with full_precision(look.device):
            codes = self.tokenizer(look).x.argmax(-1)
        return codes.gather(1, indices)
