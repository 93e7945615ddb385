"""What contrastive learning does to colours and sharpness, on uint8 clips [T,C,H,W] and images [C,H,W].

One call draws one set of parameters, so all frames of a clip are treated alike (as CVRL has it, arXiv:2008.03800).
"""

from __future__ import annotations

from torchvision.transforms import v2

REACH = 3
"""Standard deviations of the widest blur that its kernel covers on either side."""


def ColorJitter(
    brightness: float, contrast: float, saturation: float, hue: float = 0.0, p: float = 1.0
) -> v2.Transform:
    """With probability `p`, factors of brightness, contrast and saturation within 1 ± these, and a shift of the hue, in random order.

    Args:
        brightness, contrast, saturation: largest deviation of each factor from 1.
        hue: largest shift, as a share of the circle; at most 0.5.
        p: probability.
    """
    return _sometimes(v2.ColorJitter(brightness, contrast, saturation, hue), p)


def Grayscale(p: float = 0.2) -> v2.RandomGrayscale:
    """With probability `p`, all channels the same luminance."""
    return v2.RandomGrayscale(p)


def GaussianBlur(p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> v2.Transform:
    """With probability `p`, a blur of a deviation drawn uniformly from `sigma`, in pixels (SimCLR, arXiv:2002.05709, A)."""
    return _sometimes(v2.GaussianBlur(2 * round(REACH * sigma[1]) + 1, sigma), p)


def Solarize(p: float = 0.2, threshold: int = 128) -> v2.RandomSolarize:
    """With probability `p`, values from `threshold` on are turned into their negative (BYOL, arXiv:2006.07733, B)."""
    return v2.RandomSolarize(threshold, p)


def _sometimes(transform: v2.Transform, p: float) -> v2.Transform:
    return transform if p >= 1 else v2.RandomApply([transform], p)
