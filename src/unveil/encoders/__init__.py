"""Signals → features."""

from unveil.encoders.encoder import Encoder
from unveil.encoders.mvit import MVIT, MVITV2, MViT, Scales, scales
from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = [
    "MVIT",
    "MVITV2",
    "SIZES",
    "Dimensions",
    "Encoder",
    "MViT",
    "Scales",
    "Size",
    "ViT",
    "dimensions",
    "scales",
]
