"""Multi-head attention (Vaswani et al. 2017), on PyTorch's fused kernels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError

QkvBias = bool | Literal["qv"]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Scaled dot-product attention, the only one there is here.

    Args:
        q, k, v: of each head [B, heads, N, d], [B, heads, L, d], [B, heads, L, d]; of windows [B, W, heads, N, d] and so on.
        mask: which pairs may attend (bool) or what is added to their score (float), broadcast to [B, heads, N, L].
        scale: of the products; 1 / √d unless given.

    Returns:
        the heads side by side [B, N, heads × d]; of windows [B, W, N, heads × d].
    """
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return y.transpose(-3, -2).flatten(-2)


class Attention(nn.Module):
    """Self-attention, or cross-attention when a context is given.

    Args:
        width: of what comes in.
        heads: must divide the width of the queries.
        qkv_bias: True, False, or "qv": none on the keys (BEiT, VideoMAE), where it would change nothing but rounding.
        out: width of queries, keys, values and the result; `width` unless given.
        head_width: of the queries, keys and values of each head, where they do not divide that width among them.
        cosine: queries and keys have length 1, and the products of each head are divided by a learned temperature instead of
            the root of the width, at least 0.01 (Liu et al. 2022, Swin Transformer V2).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qkv_bias: QkvBias = True,
        out: int | None = None,
        head_width: int | None = None,
        cosine: bool = False,
    ):
        super().__init__()
        out = width if out is None else out
        if head_width is None and out % heads:
            raise UserError(f"{heads} attention heads do not divide a width of {out}: choose other ones.")
        inner = out if head_width is None else heads * head_width
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * inner, bias=qkv_bias is True)
        self.q_bias = nn.Parameter(torch.zeros(inner)) if qkv_bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(inner)) if qkv_bias == "qv" else None
        self.proj = nn.Linear(inner, out)
        self.tau = nn.Parameter(torch.ones(heads)) if cosine else None

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: queries [B, N, D]; of windows [B, W, N, D], each of which attends within itself.
            context: what is attended to [B, L, D]; `x` itself when None.
            mask: which pairs may attend (bool) or what is added to their score (float), broadcast to [B, heads, N, L].
        """
        q, k, v = self.projected(x, context)
        if self.tau is None:
            return self.proj(attend(q, k, v, mask))
        q = functional.normalize(q, dim=-1) / self.tau.clamp(min=0.01)[:, None, None]
        return self.proj(attend(q.to(v.dtype), functional.normalize(k, dim=-1).to(v.dtype), v, mask, scale=1.0))

    def projected(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, N, d], keys and values [B, heads, L, d]."""
        width = self.proj.in_features
        bias = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        if context is None:
            q, k, v = functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        else:
            q_bias, kv_bias = (None, None) if bias is None else (bias[:width], bias[width:])
            q = functional.linear(x, self.qkv.weight[:width], q_bias)
            k, v = functional.linear(context, self.qkv.weight[width:], kv_bias).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for t in (q, k, v))
        return q, k, v
