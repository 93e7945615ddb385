"""Transforms of torchvision.transforms.v2 with the field's settings, on uint8 clips [T,C,H,W] and images [C,H,W].

One call draws one set of parameters, so all frames of a clip are treated alike. Their reprs are written into the run folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from unveil.data.boxes import Box


class MultiScaleCrop(v2.Transform):
    """A crop of random size at one of 13 fixed places, resized to a square (TSN, arXiv:1507.02159 section 3.2; VideoMAE).

    Each side is the short side times one of `scales`; the two scales are at most `max_distort` apart in the list. The places
    are the corners, the centre, and those half and quarter way between.

    Args:
        size: side of the result.
        scales: fractions of the short side.
        max_distort: how far apart the scales of width and height may be.
    """

    def __init__(self, size: int, scales: Sequence[float] = (1, 0.875, 0.75, 0.66), max_distort: int = 1):
        super().__init__()
        self.size = size
        self.scales = tuple(scales)
        self.max_distort = max_distort

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        short = min(height, width)
        sides = [max(1, int(short * scale)) for scale in self.scales]
        # What is about the result's size is taken at it, and need not be resized.
        sides = [self.size if abs(side - self.size) < 3 and self.size <= short else side for side in sides]
        count = len(sides)
        pairs = [(h, w) for h in range(count) for w in range(count) if abs(h - w) <= self.max_distort]
        h, w = pairs[int(torch.randint(len(pairs), ()))]
        down, right = (height - sides[h]) // 4, (width - sides[w]) // 4
        places = [(i, j) for i in (0, 2, 4) for j in (0, 2, 4)] + [(i, j) for i in (1, 3) for j in (1, 3)]
        i, j = places[int(torch.randint(len(places), ()))]
        return {"top": i * down, "left": j * right, "height": sides[h], "width": sides[w]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resized_crop(inpt, **params, size=[self.size, self.size], antialias=True)

    def extra_repr(self) -> str:
        return f"size={self.size}, scales={self.scales}, max_distort={self.max_distort}"


class RandomShortSideCrop(v2.Transform):
    """Scale jitter: the short side resized to a random size, then a square cut out at random (VGG, arXiv:1409.1556 section 3.1).

    The part is cut out first, of whole pixels, and then resized: so its scale is the drawn one within a pixel of the source.

    Args:
        size: side of the result.
        low, high: range of the short side's size; every whole number is equally likely.
        inverse: draw 1 / size uniformly instead (SlowFast's option, arXiv:1812.03982).
    """

    def __init__(self, size: int, low: int, high: int, inverse: bool = False):
        super().__init__()
        if not 0 < size <= low <= high:
            raise ValueError(f"a crop of {size} must fit into short sides of {low} to {high}, and these must ascend")
        self.size, self.low, self.high, self.inverse = size, low, high, inverse

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        short = min(height, width)
        if self.inverse:
            drawn = round(1 / _between(1 / self.high, 1 / self.low))
        else:
            drawn = self.low + int(torch.randint(self.high - self.low + 1, ()))
        side = min(short, max(1, round(short * self.size / drawn)))
        top, left = (int(torch.randint(length - side + 1, ())) for length in (height, width))
        return {"top": top, "left": left, "height": side, "width": side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resized_crop(inpt, **params, size=[self.size, self.size], antialias=True)

    def extra_repr(self) -> str:
        return f"size={self.size}, low={self.low}, high={self.high}, inverse={self.inverse}"


class CropFirst:
    """A transform that cuts out a part and resizes it, in two steps: so a reader need not convert the rest.

    Together they equal the transform, bit for bit, and draw the same from the random generator.

    Args:
        transform: `RandomResizedCrop`, `MultiScaleCrop` or `RandomShortSideCrop`.
    """

    def __init__(self, transform: v2.RandomResizedCrop | MultiScaleCrop | RandomShortSideCrop):
        self._transform = transform

    @staticmethod
    def of(transform: Any) -> CropFirst | None:
        """None for a transform that begins with something else."""
        kinds = v2.RandomResizedCrop | MultiScaleCrop | RandomShortSideCrop
        return CropFirst(transform) if isinstance(transform, kinds) else None

    def box(self, height: int, width: int) -> Box:
        """Draw the part."""
        return Box(**self._transform.make_params([torch.empty((3, height, width), device="meta")]))

    def resize(self, x: Tensor) -> Tensor:
        size = self._transform.size
        mode = getattr(self._transform, "interpolation", InterpolationMode.BILINEAR)
        antialias = getattr(self._transform, "antialias", True)
        return F.resize(x, [size, size] if isinstance(size, int) else list(size), mode, antialias=antialias)


def RandomResizedCrop(
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    bicubic: bool = False,
) -> v2.RandomResizedCrop:
    """A crop of random area and aspect, resized to a square (Inception; MAE: scale 0.2 to 1, bicubic).

    Args:
        size: side of the result.
        scale: range of the area, as a share of the input's.
        ratio: range of width / height.
        bicubic: interpolate with bicubic instead of bilinear weights.
    """
    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    return v2.RandomResizedCrop(size, scale=scale, ratio=ratio, interpolation=mode, antialias=True)


def HorizontalFlip(p: float = 0.5) -> v2.RandomHorizontalFlip:
    """Mirror left and right with probability `p`."""
    return v2.RandomHorizontalFlip(p)


def RandAugment(num_ops: int = 2, magnitude: int = 9) -> v2.RandAugment:
    """`num_ops` random operations of strength `magnitude` (0 to 30), the same on all frames (arXiv:1909.13719).

    torchvision's fourteen operations; timm's variant, which the released fine-tuning scripts call, also varies the magnitude.
    """
    return v2.RandAugment(num_ops, magnitude, interpolation=InterpolationMode.BILINEAR)


def ResizeShort(size: int, bicubic: bool = False) -> v2.Resize:
    """Resize so that the short side is `size`, keeping the aspect."""
    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    return v2.Resize(size, interpolation=mode, antialias=True)


def CenterCrop(size: int) -> v2.CenterCrop:
    """The square of side `size` in the middle; what is smaller is padded with zeros."""
    return v2.CenterCrop(size)


def centred(crop: int, short_side: int | None = None, bicubic: bool = False) -> list[v2.Transform]:
    """What evaluation looks at: the middle of the picture.

    Args:
        crop: side of the square, in pixels.
        short_side: that the picture is resized to before; 256/224 of the crop unless given.
        bicubic: rather than bilinear.
    """
    return [ResizeShort(crop * 256 // 224 if short_side is None else short_side, bicubic), CenterCrop(crop)]


def fine_tuning(crop: int, flip: bool, bicubic: bool = False) -> list[Any]:
    """What image transformers are fine-tuned on (the scripts of MAE, BEiT and MoCo v3): a random crop, augmented.

    timm's magnitude 9 of 10 is 27 of 30 here; its two operations apply with probability one half each, here it is one.

    Args:
        crop: side of the square, in pixels.
        flip: mirror at random.
        bicubic: rather than bilinear.
    """
    return [RandomResizedCrop(crop, bicubic=bicubic), *[HorizontalFlip()] * flip, RandAugment(1, 27)]


def three_crops(x: Tensor, size: int) -> list[Tensor]:
    """Three squares along the long side: left, centre, right (top, centre, bottom when it stands upright).

    The spatial views of video testing (SlowFast, arXiv:1812.03982 section 4.1). Resize the short side first.

    Args:
        x: [...,H,W], with both sides at least `size`.
        size: of the squares.
    """
    height, width = x.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"crops of {size} do not fit into {height} x {width}")
    top, left = (height - size) // 2, (width - size) // 2
    if width >= height:
        corners = [(top, 0), (top, left), (top, width - size)]
    else:
        corners = [(0, left), (top, left), (height - size, left)]
    return [x[..., i : i + size, j : j + size] for i, j in corners]


class RandomErasing:
    """Replace a random box by normal noise, in the same place of every frame (arXiv:1708.04896, per-pixel mode).

    Runs after normalisation, on [C,T,H,W] or [C,H,W].

    Args:
        p: probability.
        scale: range of the box's area, as a share of the image's.
        ratio: range of its height / width, drawn uniformly in its logarithm.
    """

    def __init__(
        self, p: float, scale: tuple[float, float] = (0.02, 1 / 3), ratio: tuple[float, float] = (0.3, 1 / 0.3)
    ):
        self.p = p
        self.scale = scale
        self.ratio = ratio

    def __repr__(self) -> str:
        return f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio})"

    def __call__(self, x: Tensor) -> Tensor:
        if torch.rand(()).item() >= self.p:
            return x
        height, width = x.shape[-2:]
        for _ in range(10):  # a long thin box may not fit; then another is drawn
            area = height * width * _between(*self.scale)
            aspect = math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                i = int(torch.randint(height - h + 1, ()))
                j = int(torch.randint(width - w + 1, ()))
                x = x.clone()
                x[..., i : i + h, j : j + w] = torch.randn(*x.shape[:-2], h, w)
                return x
        return x


def _between(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()
