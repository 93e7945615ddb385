"""ResNeXt has ResNet's names."""

from unveil.weights.resnet import LICENCE, convert

__all__ = ["LICENCE", "convert"]
