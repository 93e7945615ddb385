"""Tensors → tokens with coordinates."""

from unveil.tokens.grid import coordinates, ravel, refine, unravel
from unveil.tokens.groups import Groups, farthest, nearest, squared_distances, taken
from unveil.tokens.patchify import Patchify, Plain, Tokenizer, resample
from unveil.tokens.positions import PerceptronPositions, Positions, SumPositions, sincos
from unveil.tokens.spectrogram import AUDIOSET_MEAN, AUDIOSET_STD, FilterBank, Spectrogram
from unveil.tokens.tokens import Tokens

__all__ = [
    "AUDIOSET_MEAN",
    "AUDIOSET_STD",
    "FilterBank",
    "Groups",
    "Patchify",
    "PerceptronPositions",
    "Plain",
    "Positions",
    "Spectrogram",
    "SumPositions",
    "Tokenizer",
    "Tokens",
    "coordinates",
    "farthest",
    "nearest",
    "ravel",
    "refine",
    "resample",
    "sincos",
    "squared_distances",
    "taken",
    "unravel",
]
