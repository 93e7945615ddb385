"""Signals → features."""

from unveil.encoders.conv_stem import ConvStem
from unveil.encoders.dalle import DALLE, DalleEncoder, DalleSize, VisualTokenizer
from unveil.encoders.dgcnn import DGCNN, PointEncoder
from unveil.encoders.encoder import Encoder, shown, streams_of
from unveil.encoders.fusion import Fusion
from unveil.encoders.mvit import MVIT, MVITV2, MViT, Scales, scales
from unveil.encoders.resnet import DEPTHS, Inflation, ResNet, pyramid, stage
from unveil.encoders.s3d import S3D, Inception, Stem
from unveil.encoders.slowfast import Lateral, SlowFast
from unveil.encoders.text import TextTransformer
from unveil.encoders.vit import SIZES, Dimensions, Size, ViT, dimensions

__all__ = [
    "DALLE",
    "DEPTHS",
    "DGCNN",
    "MVIT",
    "MVITV2",
    "S3D",
    "SIZES",
    "ConvStem",
    "DalleEncoder",
    "DalleSize",
    "Dimensions",
    "Encoder",
    "Fusion",
    "Inception",
    "Inflation",
    "Lateral",
    "MViT",
    "PointEncoder",
    "ResNet",
    "Scales",
    "Size",
    "SlowFast",
    "Stem",
    "TextTransformer",
    "ViT",
    "VisualTokenizer",
    "dimensions",
    "pyramid",
    "scales",
    "shown",
    "stage",
    "streams_of",
]
