"""Features → answers. Every head is called `head(tokens, pool)`, with the encoder's own way to pool."""

from unveil.heads.attentive import AttentiveHead
from unveil.heads.convolutional import ConvolutionalHead
from unveil.heads.linear import LinearHead

__all__ = ["AttentiveHead", "ConvolutionalHead", "LinearHead"]
