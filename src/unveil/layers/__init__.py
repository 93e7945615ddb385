"""The bricks that encoders and decoders share."""

from unveil.layers.attention import Attention, attend
from unveil.layers.block import Block, LayerNorm, run_blocks
from unveil.layers.dropout import Dropout, DropPath, seed_dropout
from unveil.layers.initialise import xavier
from unveil.layers.mlp import Mlp
from unveil.layers.pooling import PoolingAttention, PoolingBlock, RelativePositions

__all__ = [
    "Attention",
    "Block",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "Mlp",
    "PoolingAttention",
    "PoolingBlock",
    "RelativePositions",
    "attend",
    "run_blocks",
    "seed_dropout",
    "xavier",
]
