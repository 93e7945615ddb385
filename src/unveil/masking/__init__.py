"""A grid → which of its places are visible and which are masked."""

from unveil.masking.block import Block
from unveil.masking.by_length import ByLength
from unveil.masking.cube import Cube
from unveil.masking.mask import Mask, Masker, PlacedMasker, draw
from unveil.masking.neighbourhood import Neighbourhood
from unveil.masking.random import Random
from unveil.masking.structured import Structured
from unveil.masking.text import TextMasker, draw_words
from unveil.masking.tube import Tube

__all__ = [
    "Block",
    "ByLength",
    "Cube",
    "Mask",
    "Masker",
    "Neighbourhood",
    "PlacedMasker",
    "Random",
    "Structured",
    "TextMasker",
    "Tube",
    "draw",
    "draw_words",
]
