"""Signals → features."""

from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = ["SIZES", "Dimensions", "Size", "ViT", "dimensions"]
