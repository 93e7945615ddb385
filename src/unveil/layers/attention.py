"""Multi-head attention (Vaswani et al. 2017), on PyTorch's fused kernels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError

QkvBias = bool | Literal["qv"]


class Attention(nn.Module):
    """Self-attention, or cross-attention when a context is given.

    Args:
        width: of queries, keys, values and the result.
        heads: must divide the width.
        qkv_bias: True, False, or "qv": none on the keys (BEiT, VideoMAE), where it would change nothing but rounding.
    """

    def __init__(self, width: int, heads: int, qkv_bias: QkvBias = True):
        super().__init__()
        if width % heads:
            raise UserError(f"{heads} attention heads do not divide a width of {width}: choose other ones.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias is True)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias == "qv" else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: queries [B, N, D].
            context: what is attended to [B, L, D]; `x` itself when None.
            mask: which pairs may attend (bool) or what is added to their score (float), broadcast to [B, heads, N, L].
        """
        width = x.shape[-1]
        bias = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        if context is None:
            q, k, v = functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        else:
            q_bias, kv_bias = (None, None) if bias is None else (bias[:width], bias[width:])
            q = functional.linear(x, self.qkv.weight[:width], q_bias)
            k, v = functional.linear(context, self.qkv.weight[width:], kv_bias).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(q.dtype)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).flatten(2))
