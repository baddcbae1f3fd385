"""The text decoder: the BART decoder of transformers with a tied output."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.common.layers import restrict_blocks
from models.eeg_text.config import Size

SHARPNESS, GAIN = 3.0, 2.0
"""Initial scales of queries and keys, and of values, in cross-attention, in 1/√(inputs).

Each channel has mean 0 over a segment, and so has every linear function of it. With BART's
weights, a query attends to the mean over time, of which 1.5 % differs between segments: on
embedded:reading-small, tiny does not use the EEG for 200 steps; with these scales, after 60.
"""


class TextDecoder(nn.Module):
    """Logits of the next token from hidden states of EEG and the previous tokens."""

    bias: Tensor | None
    """Of the output, [1, vocabulary]; BART has it as a constant."""

    def __init__(
        self, size: Size, pad: int, dropout: float, kernel: str = "auto", is_pretrained: bool = False
    ) -> None:
        from transformers import BartConfig
        from transformers.models.bart.modeling_bart import BartDecoder

        super().__init__()
        self.bridge = nn.Linear(size.width, size.text_width)
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
        for layer in self.text.layers:
            attention = layer.encoder_attn
            linears = (attention.q_proj, attention.k_proj, attention.v_proj)
            for linear, scale in zip(linears, (SHARPNESS, SHARPNESS, GAIN), strict=True):
                nn.init.normal_(linear.weight, std=scale / math.sqrt(linear.in_features))
        restrict_blocks(self.text.layers, kernel)
        self.output = nn.Linear(size.text_width, size.vocabulary, bias=False)
        self.output.weight = self.text.embed_tokens.weight
        self.register_buffer("bias", torch.zeros(1, size.vocabulary) if is_pretrained else None)

    def forward(self, memory: Tensor, valid: Tensor, ids: Tensor) -> Tensor:
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
