"""Tensors → tokens with coordinates."""

from unveil.tokens.grid import coordinates, ravel, refine, unravel
from unveil.tokens.patchify import Patchify, Tokenizer, resample
from unveil.tokens.positions import Positions, SumPositions, sincos
from unveil.tokens.tokens import Tokens

__all__ = [
    "Patchify",
    "Positions",
    "SumPositions",
    "Tokenizer",
    "Tokens",
    "coordinates",
    "ravel",
    "refine",
    "resample",
    "sincos",
    "unravel",
]
