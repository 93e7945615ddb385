"""Features → answers. Every head is called `head(tokens, pool)`, with the encoder's own way to pool.

A projector takes pooled features, and gives features: it stands between an encoder and a loss.
"""

from unveil.heads.attentive import AttentiveHead
from unveil.heads.convolutional import ConvolutionalHead
from unveil.heads.linear import LinearHead
from unveil.heads.perceptron import PerceptronHead
from unveil.heads.projector import Projector, VectorNorm

__all__ = ["AttentiveHead", "ConvolutionalHead", "LinearHead", "PerceptronHead", "Projector", "VectorNorm"]
