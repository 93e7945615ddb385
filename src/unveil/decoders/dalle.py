"""The decoder of DALL-E's discrete VAE (Ramesh et al. 2021, appendix A.1): codes → pixels."""

from __future__ import annotations

from torch import Tensor, nn

from unveil.encoders.dalle import GROUPS, DalleSize, dalle_dimensions
from unveil.layers import fan_in, preactivated, run_blocks
from unveil.tokens import Tokens

KERNELS = (1, 3, 3, 3)


class DalleDecoder(nn.Module):
    """The mirror of `DalleEncoder`: mixtures of codes → maps of eight times the side.

    Args:
        size: as of the encoder.
        vocab: how many codes there are.
        channels: of what comes out.
    """

    checkpointing: bool = False

    def __init__(self, size: DalleSize, vocab: int, channels: int):
        super().__init__()
        width, blocks = dalle_dimensions(size)
        self.embed = nn.Linear(vocab, max(1, width // 2))
        groups, gain = [], 1 / (GROUPS * blocks) ** 2
        before = self.embed.out_features
        for group in reversed(range(GROUPS)):
            after = width * 2**group
            parts: list[nn.Module] = []
            for number in range(blocks):
                parts.append(preactivated(before if number == 0 else after, after, KERNELS, gain))
            if group > 0:
                parts.append(nn.Upsample(scale_factor=2, mode="nearest"))
            groups.append(nn.Sequential(*parts))
            before = after
        self.blocks = nn.ModuleList(groups)
        self.head = nn.Conv2d(width, channels, 1)
        fan_in(self)
        # Of a mixture of codes a row of this layer is one code's vector: its inputs sum to one, and are not `vocab` many.
        nn.init.normal_(self.embed.weight)

    def forward(self, codes: Tokens) -> Tensor:
        """Tokens with x [B, N, vocab], how much of each code there is at each place of a whole grid → [B, channels, H, W]."""
        x = codes._replace(x=self.embed(codes.x)).map()
        return self.head(run_blocks(self.blocks, x, recompute=self.checkpointing).relu())
