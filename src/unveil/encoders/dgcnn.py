"""DGCNN: points that look at their neighbours, nearer and nearer in meaning (Wang et al. 2019, arXiv:1801.07829)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders.encoder import Encoder
from unveil.errors import UserError
from unveil.layers import run_blocks
from unveil.layers.edges import SLOPE, EdgeConvolution
from unveil.masking import Mask
from unveil.tokens import Tokens

WIDTHS = (64, 64, 128, 256)


class DGCNN(nn.Module):
    """Four edge convolutions, and a layer that sees what all of them gave; as an embedding of groups, the largest of each.

    All points of a sample are one cloud, whatever group they are in: neighbours are looked for among all that are visible.

    Args:
        width: of what comes out.
        group: points in a raw token.
        neighbours: of a point.
    """

    def __init__(self, width: int, group: int = 1, neighbours: int = 20):
        super().__init__()
        self.group = group
        self.checkpointing = False
        self.blocks = nn.ModuleList(
            EdgeConvolution(before, after, neighbours) for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.linear = nn.Linear(sum(WIDTHS), width, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Raw tokens, points one after the other, [B, N, group × 3] → [B, N, width]."""
        stages = self.stages(x.unflatten(2, (self.group, 3)).flatten(1, 2), len(self.blocks))
        found = self.linear(torch.cat(stages, dim=-1))
        largest = self.norm(found.transpose(1, 2)).unflatten(2, (-1, self.group)).max(dim=-1).values
        return functional.leaky_relu(largest, SLOPE).transpose(1, 2)

    def stages(self, points: Tensor, count: int) -> list[Tensor]:
        """What the first edge convolutions give: points [B, N, 3] → count × [B, N, D]."""
        found, x = [], points
        for block in self.blocks[:count]:
            x = run_blocks([block], x, recompute=self.checkpointing)
            found.append(x)
        return found


class PointEncoder(Encoder):
    """DGCNN over a whole cloud: every point is a token.

    Its layers are the edge convolutions but the first, which is the embedding, and the layer that joins them.

    Args:
        embed: the network, of single points.
        width: of what it gives.
    """

    masked = "drop"

    def __init__(self, embed: DGCNN, width: int):
        super().__init__()
        if embed.group != 1:
            raise ValueError("an encoder of clouds takes points one by one: group=1")
        self.embed = embed
        self.width = width
        self.depth = len(embed.blocks)

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """As many places as points."""
        return (x.shape[-1],)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """Clouds [B, 3, N] → tokens with x [B, N, D]; of an early layer, of its own width.

        Raises:
            UserError: a mask; or there is no such layer.
        """
        if mask is not None:
            raise UserError("This encoder sees whole clouds: it cannot be pre-trained by masking. Use `unveil train`.")
        points, stop = x.transpose(1, 2), self._stop(layer)
        found = self.embed(points) if stop == self.depth else self.embed.stages(points, stop + 1)[-1]
        return Tokens(found, points, (x.shape[-1],), places=points)

    def pool(self, tokens: Tokens) -> Tensor:
        """The mean of the points [B, D]."""
        return tokens.mean()

    def layer_of(self, name: str) -> int:
        """0 the first edge convolution, 1 … depth - 1 the others, depth what joins them."""
        _, part, *rest = name.split(".")
        return int(rest[0]) if part == "blocks" else self.depth
