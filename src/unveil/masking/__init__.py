"""A grid → which of its places are visible and which are masked."""

from unveil.masking.block import Block
from unveil.masking.by_length import ByLength
from unveil.masking.cube import Cube
from unveil.masking.mask import Mask, Masker, draw
from unveil.masking.random import Random
from unveil.masking.tube import Tube

__all__ = ["Block", "ByLength", "Cube", "Mask", "Masker", "Random", "Tube", "draw"]
