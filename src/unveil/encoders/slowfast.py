"""SlowFast: two residual networks that look at a clip at two speeds (Feichtenhofer et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder
from unveil.encoders.resnet import ResNet, refuse_mask
from unveil.errors import UserError
from unveil.layers import ConvNorm
from unveil.masking import Mask
from unveil.tokens import Tokens


class Lateral(nn.Module):
    """What the fast pathway tells the slow one: a convolution over time with the stride of their speeds (section 3.4).

    Args:
        fuse: map of the fast pathway → map at the speed of the slow one.
    """

    def __init__(self, fuse: ConvNorm):
        super().__init__()
        self.fuse = fuse

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """[B, C, T, H, W] and [B, C', αT, H, W] → [B, C + C'', T, H, W]."""
        return torch.cat([slow, self.fuse(fast)], dim=1)


class SlowFast(Encoder):
    """A network that sees every α-th frame, a thinner one that sees all, and connections from the fast to the slow.

    Args:
        slow, fast: of as many blocks and stages each.
        laterals: after the stem and after every stage but the last.
        alpha: frames of the fast pathway to one of the slow.
    """

    def __init__(self, slow: ResNet, fast: ResNet, laterals: Sequence[Lateral], alpha: int):
        super().__init__()
        self.slow = slow
        self.fast = fast
        self.laterals = nn.ModuleList(laterals)
        self.alpha = alpha
        self.width, self.depth = slow.width + fast.width, slow.depth

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """Raises UserError: see `forward`."""
        refuse_mask()

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: normalised clip [B, C, T, H, W], of the fast pathway's frames.
            mask: None.
            layer: stop after this block of either pathway (1 … depth, negative from the end); None runs all of it.

        Returns:
            both maps on the slow one's grid, slow channels first; its `stages` hold the two pathways.

        Raises:
            UserError: a mask, no such layer, or frames that α does not divide.
        """
        if mask is not None:
            refuse_mask()
        if x.shape[2] % self.alpha:
            raise UserError(
                f"--frames {x.shape[2]}: SlowFast's slow pathway takes one of {self.alpha} frames; use a multiple."
            )
        end = self._stop(layer)
        fast = self.fast.stem(x)
        slow = self.slow.stem(x[:, :, self.slow_frames(x.shape[2])])
        stages, begin = [], 0
        for number, until in enumerate(self.slow.ends):
            if begin >= end:
                break
            slow = self.laterals[number](slow, fast)
            slow = self.slow.through(slow, begin, min(until, end))
            fast = self.fast.through(fast, begin, min(until, end))
            stages.append([Tokens.of_map(slow), Tokens.of_map(fast)])
            begin = until
        return Tokens.of_map(joined(slow, fast))._replace(stages=stages)

    def slow_frames(self, frames: int) -> list[int]:
        """Which frames the slow pathway sees: evenly from the first to the last, rounded down, as released (not every α-th)."""
        count = frames // self.alpha
        return [i * (frames - 1) // max(1, count - 1) for i in range(count)]

    def pool(self, tokens: Tokens) -> Tensor:
        """The mean over the map [B, width]."""
        return tokens.mean()

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name here; a lateral connection belongs to the blocks before it."""
        part, _, rest = name.partition(".")
        if part == "laterals":
            return (0, *self.slow.ends)[int(rest.split(".")[0])]
        return self.slow.layer_of(rest)

    @property
    def blocks(self) -> list[nn.Module]:
        """Those of both pathways."""
        return [*self.slow.blocks, *self.fast.blocks]


def joined(slow: Tensor, fast: Tensor) -> Tensor:
    """Two maps as one, the second averaged over the time of each frame of the first: channels one after the other."""
    frames = slow.shape[2]
    return torch.cat([slow, fast.unflatten(2, (frames, -1)).mean(3)], dim=1)
