"""Transformer layers in which no token attends to padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.common.attention_kernels import attention_kernel
from models.common.dropout import Dropout


class SelfAttention(nn.Module):
    """Attention of every token to every valid one."""

    def __init__(self, width: int, heads: int, dropout: float, kernel: str) -> None:
        super().__init__()
        self.heads, self.dropout, self.kernel = heads, dropout, kernel
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` [batch, token, width]; `valid` [batch, token], bool, at least one True per row."""
        batch, tokens, width = x.shape
        heads = self.in_proj(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        with attention_kernel(self.kernel):
            mixed = F.scaled_dot_product_attention(
                q, k, v, valid[:, None, None, :], dropout_p=self.dropout if self.training else 0.0
            )
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """A post-norm transformer layer, as in the original transformer.

    Not torch's layer: its fast path in evaluation reads the weights of submodules without calling
    their forward, where an engine gathers shards.
    """

    recomputes = False
    """Whether activations are recomputed in the backward pass."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, kernel: str) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout, kernel)
        self.attention_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """As SelfAttention.forward."""
        if self.recomputes and x.requires_grad:
            # Inside forward, so that the hooks of an engine around the layer stay outside.
            return checkpoint(self._forward, x, valid, use_reentrant=False)
        return self._forward(x, valid)

    def _forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, valid)))
        hidden = self.dropout(F.gelu(self.widen(x)))
        return self.norm(x + self.dropout(self.narrow(hidden)))
