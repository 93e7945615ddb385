"""The residual network, over images or clips (He et al. 2016 and its descendants)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal, NoReturn

from torch import Tensor, nn

from unveil.encoders.encoder import Encoder
from unveil.errors import UserError
from unveil.layers import Norm, Residual, bottleneck, he, run_blocks
from unveil.masking import Mask
from unveil.tokens import Tokens

#: How a kernel of less time becomes one of more: repeated and divided by its length, or in the centre with zeros around.
Inflation = Literal["mean", "centre"]


def stage(
    blocks: Sequence[Callable[..., Residual]], width_in: int, width: int, stride: Sequence[int]
) -> list[Residual]:
    """Blocks of one width, of which the first changes width and resolution.

    Args:
        blocks: makers, `(width_in, width, stride) → block`.
        width_in, width: of the map before and after.
        stride: of the first block, one number for each axis.
    """
    still = (1,) * len(stride)
    return [make(width if i else width_in, width, still if i else stride) for i, make in enumerate(blocks)]


#: Number of blocks in each of the four stages, by the number of layers.
DEPTHS: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def pyramid(
    depths: Sequence[int],
    width: int,
    *,
    norm: Norm,
    lengths: Sequence[Sequence[int]] | None = None,
    groups: int = 1,
    group_width: int | None = None,
    laterals: Sequence[int] = (0, 0, 0, 0),
    inserted: Callable[[int, int, int], nn.Module | None] = lambda number, block, width: None,
) -> list[list[Residual]]:
    """The stages of He et al.'s bottleneck network: four times the stem's width, doubled at each stage but the first.

    Args:
        depths: blocks of each stage.
        width: that the stem gives.
        norm: channels → norm.
        lengths: in time, of the first convolution of each block, repeated within a stage (section 3.3 of Non-local; Slow);
            None for images.
        groups: cardinality of the second convolutions.
        group_width: channels of a group in the first stage; `width` / groups unless given.
        laterals: channels that join before each stage.
        inserted: `(stage, block, width) → module` that stands after that block, or None.
    """
    stages, width_in = [], width
    for number, depth in enumerate(depths):
        inner = groups * (group_width or width // groups) * 2**number
        out, step = 4 * width * 2**number, 1 if number == 0 else 2
        blocks = [
            partial(
                bottleneck,
                inner=inner,
                kernels=((1, 1), (3, 3), (1, 1))
                if lengths is None
                else ((lengths[number][i % len(lengths[number])], 1, 1), (1, 3, 3), (1, 1, 1)),
                norm=norm,
                groups=groups,
                inserted=inserted(number, i, out),
            )
            for i in range(depth)
        ]
        stride = (step, step) if lengths is None else (1, step, step)
        stages.append(stage(blocks, width_in + laterals[number], out, stride))
        width_in = out
    return stages


class ResNet(Encoder):
    """Stem, stages of residual blocks, a feature map.

    Args:
        stem: signal → map.
        stages: blocks of each, fine to coarse.
        width: of the map that comes out.
        last: map → map, after the last block; None for nothing.
        inflation: how a checkpoint of images, or of shorter kernels, is made longer in time; see `Inflation`.
        pooling: the last map's tokens → one vector [B, width]; None for their mean.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        width: int,
        last: nn.Module | None = None,
        inflation: Inflation = "mean",
        pooling: nn.Module | None = None,
    ):
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(block for blocks in stages for block in blocks)
        self.last = nn.Identity() if last is None else last
        self.ends = tuple(accumulate(map(len, stages)))  # blocks up to the end of each stage
        self.width, self.depth = width, len(self.blocks)
        self.inflation: Inflation = inflation
        self.pooling = pooling
        he(self)

    def extra_repr(self) -> str:
        return f"stages={self.ends}"

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        """Raises UserError: see `forward`."""
        refuse_mask()

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        """
        Args:
            x: normalised signal [B, C, *S].
            mask: None.
            layer: stop after this block (1 … depth, negative from the end); None runs all of it.

        Returns:
            the last map as tokens; of all of it, the maps of the stages are its `stages`.

        Raises:
            UserError: a mask, or no such layer.
        """
        if mask is not None:
            refuse_mask()
        x = self.stem(x)
        if layer is not None:
            return Tokens.of_map(self.through(x, 0, self._stop(layer)))
        maps = []
        for begin, end in zip((0, *self.ends), self.ends, strict=False):
            x = self.through(x, begin, end)
            maps.append(x)
        return Tokens.of_map(self.last(x))._replace(stages=[[Tokens.of_map(map)] for map in maps])

    def through(self, x: Tensor, begin: int, end: int) -> Tensor:
        """Map → map, through the blocks from `begin` to before `end`."""
        return run_blocks(self.blocks[begin:end], x, recompute=self.checkpointing)

    def pool(self, tokens: Tokens) -> Tensor:
        """The mean over the map [B, width], or what the pooling makes of it; of an early layer the mean."""
        if self.pooling is None or tokens.x.shape[-1] != self.width:
            return tokens.mean()
        return self.pooling(tokens)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, by its name here: 0 stem, 1 … depth blocks, depth + 1 after them."""
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.depth + 1 if part in ("last", "pooling") else 0

    def adapt(self, state: dict[str, Any], prefix: str = "") -> list[str]:
        """Inflate kernels of images, or of less time, in place (Carreira, Zisserman 2017); returns their names."""
        inflated = []
        for name, own in self.named_parameters():
            weight = state.get(f"{prefix}{name}")
            if weight is None or own.ndim != 5 or weight.shape == own.shape:
                continue
            flat = weight[:, :, None] if weight.ndim == 4 else weight
            if flat.ndim == 5 and flat.shape[2] == 1 and flat[:, :, 0].shape == own[:, :, 0].shape:
                state[f"{prefix}{name}"] = inflate(flat, own.shape[2], self.inflation)
                inflated.append(f"{prefix}{name}")
        return inflated

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.adapt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def refuse_mask() -> NoReturn:
    """Raises UserError: convolutions have no way to leave places out."""
    raise UserError(
        "A convolutional encoder sees whole signals: it cannot be pre-trained by masking. Use `unveil train`."
    )


def inflate(weight: Tensor, length: int, how: Inflation) -> Tensor:
    """A kernel of one frame [O, I, 1, H, W] → of `length` frames, which gives the same on a clip that stands still.

    That is so of "centre" at any clip; of "mean" but for the frames at either end, whose padding is darker.
    """
    if how == "mean":
        return weight.expand(-1, -1, length, -1, -1) / length
    grown = weight.new_zeros(*weight.shape[:2], length, *weight.shape[3:])
    grown[:, :, length // 2] = weight[:, :, 0]
    return grown
