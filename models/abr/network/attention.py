"""Pre-norm transformer layers of the bottleneck, the decoder and the signal head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.abr.config import MAX_DISTANCE
from models.common.attention_kernels import attention_kernel
from models.common.dropout import Dropout


class Attention(nn.Module):
    """Attention of one sequence to another, or to itself."""

    def __init__(self, width: int, heads: int, kernel: str, bias: bool) -> None:
        """`bias`: of queries, keys and values; the output always has one."""
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor | None = None) -> Tensor:
        """`x` [batch, time, width] attends to `memory` [batch, other, width].

        `positions` [65, width]: a key for each relative position, added to the keys there.
        Source: Shaw et al., Self-Attention with Relative Position Representations,
        2018, equation 4.
        """
        query = self._by_head(self.query(x))
        key, value = self._by_head(self.key(memory)), self._by_head(self.value(memory))
        added = None if positions is None else self._distances(query, positions)
        # Flash kernels give no gradient of the added scores; see model.attention_counts.
        kernel = "auto" if self.kernel == "flash" and added is not None else self.kernel
        if kernel == "auto" and query.device.type == "cpu":
            mixed = plain_attention(query, key, value, added)
        else:
            with attention_kernel(kernel):
                mixed = F.scaled_dot_product_attention(query, key, value, added)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _distances(self, query: Tensor, positions: Tensor) -> Tensor:
        """The relative-position scores, [batch, head, time, time]."""
        batch, heads, time, width = query.shape
        keys = positions.unflatten(-1, (heads, width)).to(query.dtype)
        scores = query @ (keys * width**-0.5).permute(1, 2, 0)
        far = time - 1 - MAX_DISTANCE
        if far >= 0:  # by distance: [batch, head, time, 2 * time - 1]
            ends = (*scores.shape[:-1], far)
            first, last = scores[..., :1].expand(ends), scores[..., -1:].expand(ends)
            scores = torch.cat((first, scores, last), -1)
        else:
            scores = scores[..., -far:far]
        scores = scores.contiguous()
        # Each position starts one distance earlier than the one before. A gather reads an index as
        # large as the scores, and computes in fp32 on a CPU.
        *outer, step, _ = scores.stride()
        return scores.as_strided((batch, heads, time, time), (*outer, step - 1, 1), time - 1)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None) -> Tensor:
    """Attention by two products and a softmax, for short sequences on a CPU.

    `query` [batch, head, time, width], `key` and `value` [batch, head, other, width]; `added`
    [batch, head, time, other] or None. torch's own kernels for a CPU take up to five times as long
    in bf16 for 200 positions and eight heads, most of it in the backward pass.
    """
    # Autocast would keep the softmax in fp32 for the backward pass, and a copy in bf16.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        if added is not None:
            scores += added
        return scores.softmax(-1) @ value


class FeedForward(nn.Module):
    """Two linear layers with GELU between, the inner one `factor` times as wide."""

    def __init__(self, width: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, factor * width)
        self.dropout = Dropout(dropout)
        self.last = nn.Linear(factor * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.last(self.dropout(F.gelu(self.first(x))))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each on the norm of its input."""

    def __init__(self, width: int, heads: int, factor: int, kernel: str, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, kernel, bias=True)
        self.feed_forward = FeedForward(width, factor, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """`x` [batch, time, width]; `positions` as in Attention."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, positions))
        return x + self.dropout(self.feed_forward(self.forward_norm(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to a memory, and a feed-forward network."""

    def __init__(self, width: int, heads: int, kernel: str, dropout: float) -> None:
        super().__init__()
        self.self_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.forward_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, kernel, bias=False)
        self.cross_attention = Attention(width, heads, kernel, bias=False)
        self.feed_forward = FeedForward(width, 4, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        """`x` [batch, time, width], `memory` [batch, other, width]; positions as in Attention."""
        normed = self.self_norm(x)
        x = x + self.dropout(self.self_attention(normed, normed, positions))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory))
        return x + self.dropout(self.feed_forward(self.forward_norm(x)))


def relative_positions(width: int) -> nn.Parameter:
    """A key for each relative position from -32 to 32; larger distances share the last."""
    return nn.Parameter(0.02 * torch.randn(2 * MAX_DISTANCE + 1, width))
