"""Signals → features."""

from unveil.encoders.encoder import Encoder
from unveil.encoders.s3d import S3D, Inception, Stem
from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = ["S3D", "SIZES", "Dimensions", "Encoder", "Inception", "Size", "Stem", "ViT", "dimensions"]
