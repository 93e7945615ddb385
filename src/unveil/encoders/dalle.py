"""The encoder of DALL-E's discrete VAE (Ramesh et al. 2021, appendix A.1), and the tokenizer that is made of it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unveil.encoders.encoder import Encoder
from unveil.encoders.resnet import refuse_mask
from unveil.errors import UserError
from unveil.layers import fan_in, preactivated, run_blocks
from unveil.masking import Mask
from unveil.tokens import Tokens

#: Groups of blocks; between two of them the resolution is halved.
GROUPS = 4
#: Of the four convolutions of a block.
KERNELS = (3, 3, 3, 1)


class DalleDimensions(NamedTuple):
    """Width of the first group (each following one has twice as much), and blocks in a group."""

    width: int
    blocks: int


#: A name in `DALLE`, or any other size as WIDTHxBLOCKS: "96x2".
DalleSize = Literal["debug", "nano", "Ti", "S", "B"] | str

DALLE: dict[str, DalleDimensions] = {
    "debug": DalleDimensions(8, 1),
    "nano": DalleDimensions(16, 2),
    "Ti": DalleDimensions(32, 2),
    "S": DalleDimensions(96, 2),
    "B": DalleDimensions(256, 2),  # the released one
}


def dalle_dimensions(size: DalleSize) -> DalleDimensions:
    """Width and blocks of a size, by its name or its numbers.

    Raises:
        UserError: no such size.
    """
    if size in DALLE:
        return DALLE[size]
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if numbers is None or int(numbers[1]) % 4:
        raise UserError(
            f"There is no size {size!r} of a dVAE: use {', '.join(DALLE)}, or WIDTHxBLOCKS with a width that 4 divides."
        )
    return DalleDimensions(int(numbers[1]), int(numbers[2]))


BRIGHTNESS, CONTRAST = 0.5, 0.2
"""About the mean and the deviation of a photograph's values in [0.1, 0.9], the range that the encoder sees."""


class DalleEncoder(Encoder):
    """Convolutions in residual blocks without norms, four groups of them, each but the last halved by max-pooling.

    Args:
        size: a name in `DALLE`, or WIDTHxBLOCKS.
        channels: of the signal.
    """

    #: Pixels from one place of its grid to the next.
    stride = 2 ** (GROUPS - 1)
    depth = GROUPS

    def __init__(self, size: DalleSize, channels: int = 3):
        super().__init__()
        width, blocks = dalle_dimensions(size)
        self.width = width * 2 ** (GROUPS - 1)
        self.stem = nn.Conv2d(channels, width, 7, padding=3)
        groups, gain = [], 1 / (GROUPS * blocks) ** 2
        before = width
        for group in range(GROUPS):
            after = width * 2**group
            parts: list[nn.Module] = []
            for number in range(blocks):
                parts.append(preactivated(before if number == 0 else after, after, KERNELS, gain))
            if group < GROUPS - 1:
                parts.append(nn.MaxPool2d(2))
            groups.append(nn.Sequential(*parts))
            before = after
        self.blocks = nn.ModuleList(groups)
        fan_in(self)
        # Pictures lie between 0 and 1 here. It begins as though they were centred and of unit deviation: what all places have in common
        # would else outweigh what tells them apart, and all of them would choose the same code.
        with torch.no_grad():
            self.stem.weight.div_(CONTRAST)
            assert self.stem.bias is not None
            self.stem.bias.copy_(-BRIGHTNESS * self.stem.weight.sum((1, 2, 3)))

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        refuse_mask()

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """Image [B, C, H, W] → tokens with x [B, H/8 × W/8, width]; of an early layer, of the group's own grid.

        Raises:
            UserError: a mask, no such layer, or an image whose sides 8 does not divide.
        """
        if mask is not None:
            refuse_mask()
        if any(side % self.stride for side in x.shape[2:]):
            raise UserError(
                f"An image of {' × '.join(map(str, x.shape[2:]))} has no codes: {self.stride} has to divide its sides (--crop)."
            )
        features = run_blocks(self.blocks[: self._stop(layer)], self.stem(x), recompute=self.checkpointing)
        return Tokens.of_map(features.relu() if layer is None else features)

    def pool(self, tokens: Tokens) -> Tensor:
        """The mean over all places [B, D]."""
        return tokens.mean()

    def layer_of(self, name: str) -> int:
        """0 the first convolution, 1 … 4 the groups."""
        part, number = name.split(".")[:2]
        return int(number) + 1 if part == "blocks" else 0


class VisualTokenizer(nn.Module):
    """Images → for each place of the encoder's grid, scores of the codes of a vocabulary.

    Args:
        encoder: of images.
        vocab: how many codes there are.
    """

    def __init__(self, encoder: DalleEncoder, vocab: int):
        super().__init__()
        self.encoder = encoder
        self.vocab = vocab
        self.classify = nn.Linear(encoder.width, vocab)
        fan_in(self.classify)

    def extra_repr(self) -> str:
        return f"vocab={self.vocab}"

    def forward(self, x: Tensor) -> Tokens:
        """Image [B, C, H, W] → tokens with logits x [B, N, vocab]."""
        tokens = self.encoder(x)
        return tokens._replace(x=self.classify(tokens.x))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Image [B, C, H, W] → the likeliest code of each place [B, N] int64."""
        return self(x).x.argmax(-1)
