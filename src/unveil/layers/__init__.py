"""The bricks that encoders and decoders share."""

from unveil.layers.attention import Attention
from unveil.layers.block import Block, LayerNorm, run_blocks
from unveil.layers.drop_path import DropPath
from unveil.layers.initialise import xavier
from unveil.layers.mlp import Mlp

__all__ = ["Attention", "Block", "DropPath", "LayerNorm", "Mlp", "run_blocks", "xavier"]
