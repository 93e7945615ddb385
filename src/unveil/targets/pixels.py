"""Pixels of the masked patches, as they are or normalised patch by patch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from unveil.tokens import Patchify


def truncated_linspace(num: int, wanted: int) -> list[int]:
    """`wanted` of `num` frames, evenly spread and rounded down, as MAE-ST picks the frames it predicts."""
    return torch.linspace(0, num - 1, wanted).long().tolist()


class Pixels:
    """The pixels of patches: `(batch, grid, indices [B, Nm]) → [B, Nm, P]`.

    Args:
        patchify: how the signal is cut; its patches lie on the encoder's grid.
        key: of the signal in the batch.
        normalize: "patch" subtracts the mean of all values of a patch and divides by sqrt(variance + 1e-6) (MAE);
            "channel" does so for each colour channel alone and divides by (standard deviation + 1e-6) (VideoMAE), or, as
            "channel variance", by sqrt(variance + 1e-6) (OmniMAE); None leaves the values.
        mean, std: of each channel: when given, the signal's own normalisation is undone first.
        frames: `(frames of the clip, frames wanted) → which`, when only some frames of a tubelet are predicted (MAE-ST:
            `truncated_linspace`); None when all are.
    """

    exact = True

    def __init__(
        self,
        patchify: Patchify,
        key: str,
        normalize: Literal["patch", "channel", "channel variance"] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        frames: Callable[[int, int], list[int]] | None = None,
    ):
        if (mean is None) != (std is None):
            raise ValueError("give both mean and std, or neither")
        self.patchify = patchify
        self.key = key
        self.normalize = normalize
        self.mean = mean
        self.std = std
        self.frames = frames

    def __repr__(self) -> str:
        return f"Pixels({self.patchify}, {self.key!r}, normalize={self.normalize!r})"

    def __call__(self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        patches = self._patches(batch, grid, indices)
        mean, scale = self._statistics(patches)
        return (patches - mean) / scale

    def signal(self, batch: Mapping[str, Tensor], grid: Sequence[int]) -> Tensor:
        """The part of the signal that is predicted [B, C, *S], in the batch's normalised units."""
        x = batch[self.key]
        if self.frames is not None:
            x = x[:, :, self.frames(x.shape[2], grid[0] * self.patchify.size[0])]
        return x

    def picture(self, predictions: Tensor, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        """Predictions [B, n, P] → patches [B, n, P] in the batch's normalised units, for looking at.

        A normalised target has lost the patch's mean and contrast; they are taken from the true patch.
        """
        mean, scale = self._statistics(self._patches(batch, grid, indices))
        patches = predictions * scale + mean
        if self.mean is None or self.std is None:
            return patches
        return self._by_channel(patches, lambda x: (x - x.new_tensor(self.mean)) / x.new_tensor(self.std))

    def _patches(self, batch: Mapping[str, Tensor], grid: Sequence[int], indices: Tensor) -> Tensor:
        tokens = self.patchify(self.signal(batch, grid))
        if tokens.grid != tuple(grid):
            raise ValueError(f"{self} cuts the signal into {tokens.grid}, but was asked about the grid {tuple(grid)}")
        patches = tokens.gather(indices).x.float()
        if self.mean is None or self.std is None:
            return patches
        return self._by_channel(patches, lambda x: x * x.new_tensor(self.std) + x.new_tensor(self.mean))

    def _statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale, [B, n, P] or broadcast to it."""
        if self.normalize == "patch":
            var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            return mean, (var + 1e-6).sqrt()
        if self.normalize is not None:
            var, mean = torch.var_mean(patches.unflatten(-1, (-1, self.patchify.channels)), dim=-2, keepdim=True)
            pixels = patches.shape[-1] // self.patchify.channels
            scale = var.sqrt() + 1e-6 if self.normalize == "channel" else (var + 1e-6).sqrt()
            mean, scale = (t.expand(-1, -1, pixels, -1).flatten(2) for t in (mean, scale))
            return mean, scale
        return patches.new_zeros(()), patches.new_ones(())

    def _by_channel(self, patches: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(patches.unflatten(-1, (-1, self.patchify.channels))).flatten(-2)
