"""The two models of the family: EEG to text, by a BART decoder, and masked EEG."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import LayerNorm, Linear, Module
from torch.nn import functional as F

from gearshift.models.common.layers import HasFrozenParts
from gearshift.models.eeg_text.config import CHANNELS, TOKEN_SAMPLES, Size
from gearshift.models.eeg_text.encoder import Encoder

SHARPNESS = 3.0
GAIN = 2.0
"""Initial scales of queries and keys, and of values, in cross-attention, in 1/√(inputs).

Each channel has mean 0 over a segment, and so has every linear function of it. With BART's
weights, a query attends to the mean over time, of which 1.5 % differs between segments: on
embedded:reading-small, tiny does not use the EEG for 200 steps; with these scales, after 60.
"""


class TextDecoder(Module):
    """Logits of the next token from hidden states of EEG and the previous tokens."""

    bias: Tensor | None
    """Of the output, [1, vocabulary]; BART has it as a constant."""

    def __init__(
        self,
        size: Size,
        pad: int,
        dropout: float,
        is_pretrained: bool = False,
    ) -> None:
        from transformers import BartConfig
        from transformers.models.bart.modeling_bart import BartDecoder

        super().__init__()
        self.bridge = Linear(size.width, size.text_width)
        config = BartConfig(
            vocab_size=size.vocabulary,
            d_model=size.text_width,
            decoder_layers=size.text_layers,
            decoder_attention_heads=size.text_heads,
            decoder_ffn_dim=size.text_hidden,
            max_position_embeddings=size.text_context,  # the table of BART has two more rows
            dropout=dropout,
            attention_dropout=0.0,
            pad_token_id=pad,
            init_std=math.sqrt(2 / (5 * size.text_width)),
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        self.text: Any = BartDecoder(config)
        scales = {"q_proj": SHARPNESS, "k_proj": SHARPNESS, "v_proj": GAIN}
        for layer in self.text.layers:
            for name, scale in scales.items():
                weights: Any = layer.get_submodule(f"encoder_attn.{name}").weight
                nn.init.normal_(weights, std=scale / math.sqrt(size.text_width))
        self.output = Linear(size.text_width, size.vocabulary, bias=False)
        self.output.weight = self.text.embed_tokens.weight
        self.register_buffer("bias", torch.zeros(1, size.vocabulary) if is_pretrained else None)

    def forward(
        self,
        memory: Tensor,
        valid: Tensor,
        ids: Tensor,
    ) -> Tensor:
        """Logits [batch, text, vocabulary].

        Attends to `memory` [batch, token, width] where `valid` [batch, token], bool, is True;
        `ids` [batch, text]. Attention is causal, so padding at the end of `ids` has no effect.
        """
        outputs = self.text(
            input_ids=ids,
            encoder_hidden_states=self.bridge(memory),
            encoder_attention_mask=valid,
            use_cache=False,
        )
        logits: Tensor = self.output(outputs.last_hidden_state)
        return logits if self.bias is None else logits + self.bias


class EegText(HasFrozenParts):
    """Encoder and text decoder."""

    def __init__(
        self,
        size: Size,
        samples: int,
        pad: int,
        dropout: float,
        is_pretrained: bool = False,
    ) -> None:
        """`samples`: the most EEG samples; `pad`: the padding token."""
        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout)
        self.decoder = TextDecoder(
            size,
            pad,
            dropout,
            is_pretrained,
        )

    def forward(
        self,
        eeg: Tensor | None,
        valid: Tensor,
        ids: Tensor | None = None,
        memory: Tensor | None = None,
        pool: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, text, vocabulary] of the token after each of `ids` [batch, text].

        `eeg` [batch, time, 105] counts where `valid` [batch, time] is True. Without `ids`, returns
        the encoder output [batch, time / 4, width]; given as `memory`, it replaces `eeg`. With
        `pool`, `eeg` and `valid` are windows, and the output is pooled; see `pool_tokens`.
        """
        tokens = valid[:, ::TOKEN_SAMPLES]
        if memory is None:
            memory = self.encoder(eeg, valid)
            if pool is not None:
                memory = pool_tokens(memory, pool)
                tokens = (pool >= 0).any(2)
        return memory if ids is None else self.decoder(memory, tokens, ids)


def pool_tokens(states: Tensor, pool: Tensor) -> Tensor:
    """Means [batch, token, width] of `states` [window, token, width]; 0 for an empty mean.

    `pool` [batch, token, windows]: the numbers of their tokens, counted over all windows, or -1.
    """
    present = pool >= 0
    states_of_tokens = states.flatten(0, 1)[pool.clamp(min=0)] * present[..., None]
    count = present.sum(2, keepdim=True).clamp(min=1)
    return states_of_tokens.sum(2) / count.to(states.dtype)


class MaskedHead(Module):
    """The head of masked pre-training: each token predicts its four samples."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = LayerNorm(size.width)
        self.widen = Linear(size.width, size.head_hidden)
        self.out = Linear(size.head_hidden, TOKEN_SAMPLES * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Samples [batch, time, 105] from `x` [batch, token, width]."""
        y = self.out(F.gelu(self.widen(self.norm(x))))
        # A copy: with a view, an in-place change would lose the backward hook of FSDP.
        return y.view(len(y), -1, CHANNELS).clone()


class MaskedEeg(HasFrozenParts):
    """Encoder and masked head, for pre-training without text."""

    def __init__(
        self,
        size: Size,
        samples: int,
        dropout: float,
    ) -> None:
        """As EegText."""
        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout)
        self.head = MaskedHead(size)

    def forward(
        self,
        eeg: Tensor,
        valid: Tensor,
        hidden: Tensor,
    ) -> Tensor:
        """Predictions of all samples [batch, time, 105] from the visible ones.

        `hidden` [batch, time / 4], bool: tokens whose samples are 0 for the encoder.
        """
        visible = ~hidden.repeat_interleave(TOKEN_SAMPLES, dim=1)
        return self.head(self.encoder(eeg * visible[:, :, None], valid))
