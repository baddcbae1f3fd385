"""Causal self-attention with rotary positions, in Hugging Face's Llama names and conventions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common import kernels


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias whose weights nobody has drawn yet."""
    device = torch.get_default_device()
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, device=device)


def rotary(time: int, width: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, each [time, 1, width], float32.

    Computed in each forward, not kept in a buffer: engines that cast a module to bfloat16 would
    round a buffer. Both halves of the last axis hold the same angles, as Hugging Face orders
    them. Source: Su et al., RoFormer, 2021.
    """
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    positions = torch.arange(time, device=device, dtype=torch.float32)
    # Not base**-exponents: the last bit is then another than transformers has.
    angles = positions[:, None] * (1.0 / base**exponents)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`x` [batch, time, heads, width] turned by its position, in float32, given in its dtype."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cosine + turned * sine).to(x.dtype)


def document_mask(documents: Tensor) -> Tensor:
    """Which key each query may see, [batch, 1, time, time]: earlier ones of its own document.

    `documents` [batch, time] numbers the document of each token.
    """
    time = documents.shape[1]
    causal = torch.ones(time, time, dtype=torch.bool, device=documents.device).tril()
    same = documents[:, :, None] == documents[:, None, :]
    return (same & causal)[:, None]


class Attention(nn.Module):
    """Self-attention; key and value heads may be shared by groups of query heads."""

    def __init__(self, width: int, heads: int, kv_heads: int, kernel: str) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.kernel = kernel
        self.q_proj = linear(width, width)
        self.k_proj = linear(width, kv_heads * self.head_width)
        self.v_proj = linear(width, kv_heads * self.head_width)
        self.o_proj = linear(width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None) -> Tensor:
        """`x` [batch, time, width]; `mask` as document_mask gives it; None: causal."""
        batch, time, width = x.shape
        q = self.q_proj(x).view(batch, time, self.heads, self.head_width)
        k = self.k_proj(x).view(batch, time, self.kv_heads, self.head_width)
        v = self.v_proj(x).view(batch, time, self.kv_heads, self.head_width)
        q = rotate(q, cosine, sine).transpose(1, 2)
        k = rotate(k, cosine, sine).transpose(1, 2)
        v = v.transpose(1, 2)
        if self.kv_heads < self.heads:
            # Not `enable_gqa`: on the CPU it falls back to the kernel that keeps all scores.
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        with kernels.allowed(self.kernel):
            mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, time, width))
