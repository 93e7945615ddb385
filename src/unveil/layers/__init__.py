"""The bricks that encoders and decoders share."""

from unveil.layers.attention import Attention
from unveil.layers.block import Block, LayerNorm, run_blocks
from unveil.layers.dropout import Dropout, DropPath, seed_dropout
from unveil.layers.folding import channels_last, folded
from unveil.layers.initialise import he, xavier
from unveil.layers.mlp import Mlp
from unveil.layers.recompute import recompute, statistics_kept

__all__ = [
    "Attention",
    "Block",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "Mlp",
    "channels_last",
    "folded",
    "he",
    "recompute",
    "run_blocks",
    "seed_dropout",
    "statistics_kept",
    "xavier",
]
