"""The bricks that encoders and decoders share."""

from unveil.layers.attention import Attention, attend
from unveil.layers.attention_pool import AttentionPool
from unveil.layers.block import Block, LayerNorm, run_blocks
from unveil.layers.convolution import ConvNorm, convolution, factorised, max_pool
from unveil.layers.dropout import Dropout, DropPath, seed_dropout
from unveil.layers.folding import channels_last, folded
from unveil.layers.initialise import he, xavier
from unveil.layers.mlp import Mlp, QuickGELU
from unveil.layers.non_local import NonLocal, Similarity
from unveil.layers.norms import Norm, NormKind, norm_of
from unveil.layers.pooling import PoolingAttention, PoolingBlock
from unveil.layers.recompute import recomputed, statistics_kept
from unveil.layers.relative import RelativePositions
from unveil.layers.residual import Residual, antialiased, basic, bottleneck
from unveil.layers.squeeze import SqueezeExcite, Swish

__all__ = [
    "Attention",
    "AttentionPool",
    "Block",
    "ConvNorm",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "Mlp",
    "NonLocal",
    "Norm",
    "NormKind",
    "PoolingAttention",
    "PoolingBlock",
    "QuickGELU",
    "RelativePositions",
    "Residual",
    "Similarity",
    "SqueezeExcite",
    "Swish",
    "antialiased",
    "attend",
    "basic",
    "bottleneck",
    "channels_last",
    "convolution",
    "factorised",
    "folded",
    "he",
    "max_pool",
    "norm_of",
    "recomputed",
    "run_blocks",
    "seed_dropout",
    "statistics_kept",
    "xavier",
]
