"""Signals → features."""

from unveil.encoders.encoder import Encoder
from unveil.encoders.resnet import DEPTHS, Inflation, ResNet, pyramid, stage
from unveil.encoders.slowfast import Lateral, SlowFast
from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = [
    "DEPTHS",
    "SIZES",
    "Dimensions",
    "Encoder",
    "Inflation",
    "Lateral",
    "ResNet",
    "Size",
    "SlowFast",
    "ViT",
    "dimensions",
    "pyramid",
    "stage",
]
