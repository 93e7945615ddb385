"""Visible features → predictions at the places asked for."""

from unveil.decoders.dalle import DalleDecoder
from unveil.decoders.folding import Completed, FoldingDecoder
from unveil.decoders.linear import LinearDecoder
from unveil.decoders.streams import SeparateDecoders, SharedDecoder, StreamEmbedding
from unveil.decoders.transformer import TransformerDecoder
from unveil.decoders.window import WindowDecoder

__all__ = [
    "Completed",
    "DalleDecoder",
    "FoldingDecoder",
    "LinearDecoder",
    "SeparateDecoders",
    "SharedDecoder",
    "StreamEmbedding",
    "TransformerDecoder",
    "WindowDecoder",
]
