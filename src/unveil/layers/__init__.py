"""The bricks that encoders and decoders share."""

from unveil.layers.attention import Attention, attend
from unveil.layers.attention_pool import AttentionPool
from unveil.layers.block import Block, LayerNorm, run_blocks
from unveil.layers.convolution import ConvNorm, convolution, factorised, max_pool, rectify
from unveil.layers.dropout import Dropout, DropPath, gumbel, seed_dropout
from unveil.layers.edges import EdgeConvolution
from unveil.layers.folding import channels_last, folded
from unveil.layers.grouped import in_groups
from unveil.layers.initialise import by_depth, fan_in, he, truncated, xavier, xavier_qkv
from unveil.layers.mlp import Mlp, QuickGELU
from unveil.layers.momentum import Momentum, cosine_to_one
from unveil.layers.non_local import NonLocal, Similarity
from unveil.layers.norms import Norm, NormKind, norm_of
from unveil.layers.pooling import PoolingAttention, PoolingBlock
from unveil.layers.queue import Queue
from unveil.layers.recompute import recomputed, statistics_kept
from unveil.layers.relative import RelativePositions
from unveil.layers.relative_bias import ContinuousPositionBias, RelativePositionBias
from unveil.layers.residual import Residual, antialiased, basic, bottleneck, preactivated
from unveil.layers.spec_augment import SpecAugment
from unveil.layers.squeeze import SqueezeExcite, Swish
from unveil.layers.window import WindowBlock, Windows

__all__ = [
    "Attention",
    "AttentionPool",
    "Block",
    "ContinuousPositionBias",
    "ConvNorm",
    "DropPath",
    "Dropout",
    "EdgeConvolution",
    "LayerNorm",
    "Mlp",
    "Momentum",
    "NonLocal",
    "Norm",
    "NormKind",
    "PoolingAttention",
    "PoolingBlock",
    "Queue",
    "QuickGELU",
    "RelativePositionBias",
    "RelativePositions",
    "Residual",
    "Similarity",
    "SpecAugment",
    "SqueezeExcite",
    "Swish",
    "WindowBlock",
    "Windows",
    "antialiased",
    "attend",
    "basic",
    "bottleneck",
    "by_depth",
    "channels_last",
    "convolution",
    "cosine_to_one",
    "factorised",
    "fan_in",
    "folded",
    "gumbel",
    "he",
    "in_groups",
    "max_pool",
    "norm_of",
    "preactivated",
    "recomputed",
    "rectify",
    "run_blocks",
    "seed_dropout",
    "statistics_kept",
    "truncated",
    "xavier",
    "xavier_qkv",
]
