"""Signals → features."""

from unveil.encoders.encoder import Encoder
from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = ["SIZES", "Dimensions", "Encoder", "Size", "ViT", "dimensions"]
