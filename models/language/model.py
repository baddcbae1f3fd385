"""A decoder-only transformer in the Llama layout, with Hugging Face's parameter names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.language.attention import Attention, document_mask, linear, rotary
from models.language.config import Size
from models.language.head import Head

ROTARY_BASE = 10_000.0
NORM_EPSILON = 1e-5


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer, GLU Variants Improve Transformer, 2020."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = linear(width, hidden)
        self.up_proj = linear(width, hidden)
        self.down_proj = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: attention, then the feed-forward part, each added to what came in."""

    def __init__(self, size: Size, kv_heads: int, kernel: str) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.width, eps=NORM_EPSILON)
        self.self_attn = Attention(size.width, size.heads, kv_heads, kernel)
        self.post_attention_layernorm = nn.RMSNorm(size.width, eps=NORM_EPSILON)
        self.mlp = FeedForward(size.width, size.hidden)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None) -> Tensor:
        """`x` [batch, time, width]."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, size: Size, kv_heads: int, kernel: str) -> None:
        super().__init__()
        self.head_width = size.width // size.heads
        self.embed_tokens = nn.utils.skip_init(
            nn.Embedding, size.vocabulary, size.width, device=torch.get_default_device()
        )
        self.layers = nn.ModuleList(Block(size, kv_heads, kernel) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width, eps=NORM_EPSILON)

    def forward(self, input_ids: Tensor, documents: Tensor | None) -> Tensor:
        """Hidden states [batch, time, width] of `input_ids` [batch, time]."""
        cosine, sine = rotary(input_ids.shape[1], self.head_width, ROTARY_BASE, input_ids.device)
        mask = None if documents is None else document_mask(documents)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, cosine, sine, mask)
        return self.norm(x)


class Transformer(nn.Module):
    """The model; its output layer is the token embedding.

    Weights are drawn from N(0, s²) with s² = 2/5d for width d, those that add to the residual
    stream from N(0, s²/2L). s is 0.02 near 124M and 350M; narrow models learn much slower with
    0.02 (embedded:commands, tiny, 400 steps: validation loss 0.93 against 0.54). Sources: Nguyen
    and Salazar, Transformers without Tears, 2019; Radford et al., Language Models are
    Unsupervised Multitask Learners, 2019, section 2.3.
    """

    def __init__(
        self, size: Size, kv_heads: int | None = None, smoothing: float = 0.0, kernel: str = "auto"
    ) -> None:
        super().__init__()
        self.model = Decoder(size, kv_heads or size.heads, kernel)
        self.lm_head = Head(self.model.embed_tokens.weight, smoothing)
        deviation = math.sqrt(2 / (5 * size.width))
        residual = deviation / math.sqrt(2 * size.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                adds = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=residual if adds else deviation)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        documents: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, time, vocabulary]; with `labels` the loss in nats, summed over tokens.

        `input_ids`, `labels`, `documents` [batch, time], int64. `labels` holds the token that
        follows each input, or -100 to leave it out; a batch without any gives 0, with gradients.
        `documents` numbers the document of each token: none sees another's. Positions need no
        restart, as rotary attention only knows differences. With `measure`, in place of the sum,
        the loss of each token without label smoothing and whether it was the likeliest one,
        [batch, time].
        """
        return self.lm_head(self.model(input_ids, documents), labels, measure)
