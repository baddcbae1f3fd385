"""Model: two image encoders, query transformers, gate and text decoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import LayerNorm, Linear, Module, Parameter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gearshift.models.common.hugging_face import cache_name
from gearshift.models.common.layers import HasFrozenParts, modules_of
from gearshift.models.doc_translation.config import (
    DIT_PATCH,
    SWIN_PATCH,
    GlobalEncoder,
    LocalEncoder,
    Size,
)
from gearshift.models.doc_translation.decoding import DecoderCache


def _deviation(width: int) -> float:
    """Standard deviation of initial weights, near BERT's 0.02 for wide layers.

    Source: Nguyen and Salazar, Transformers without Tears, 2019.
    """
    return math.sqrt(2 / (5 * width))


def global_encoder(size: GlobalEncoder) -> Any:
    """DiT: a BEiT with learned absolute positions.

    Its mask token, which nothing uses, is frozen. Source: Li et al., DiT, 2022.
    """
    from transformers import BeitConfig, BeitModel

    config = BeitConfig(
        image_size=size.pixels,
        patch_size=DIT_PATCH,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.hidden,
        use_mask_token=True,
        use_absolute_position_embeddings=True,
        use_relative_position_bias=False,
        use_mean_pooling=False,  # required for the final norm
        layer_scale_init_value=0.1,
        drop_path_rate=0.0,
        initializer_range=_deviation(size.width),
    )
    encoder: Any = BeitModel(config, add_pooling_layer=False)
    # transformers initializes zeros, which delays the training of positions.
    nn.init.normal_(encoder.embeddings.position_embeddings, std=0.02)
    encoder.embeddings.mask_token.requires_grad_(False)
    return encoder


def local_encoder(size: LocalEncoder) -> Any:
    """Swin transformer of Donut and Nougat, without a final norm.

    Source: Blecher et al., Nougat, 2023.
    """
    from transformers import DonutSwinConfig, DonutSwinModel

    config = DonutSwinConfig(
        image_size=list(size.pixels),
        patch_size=SWIN_PATCH,
        embed_dim=size.width,
        depths=list(size.depths),
        num_heads=list(size.heads),
        window_size=size.window,
        mlp_ratio=float(size.ratio),
        drop_path_rate=0.0,
        initializer_range=_deviation(size.output_width),
    )
    return DonutSwinModel(config, add_pooling_layer=False)


def decoder(size: Size, dropout: float) -> Any:
    """Causal BERT decoder with cross-attention and tied input and output embeddings."""
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.decoder_layers,
        num_attention_heads=size.heads,
        intermediate_size=size.decoder_hidden,
        max_position_embeddings=size.positions,
        type_vocab_size=1,
        is_decoder=True,
        add_cross_attention=True,
        use_cache=False,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=_deviation(size.width),
    )
    return BertLMHeadModel(config)


EPSILON = 1e-12
"""Epsilon of layer norms, as in BERT."""

SHARPNESS = 3.0
GAIN = 4.0
"""Initial weights of queries and keys, and of image values, in units of 1/√(inputs).

With torch's default, near 0.6, a query averages all tokens and 98 % of the memory is equal for all
pages; tiny does not read embedded:cards after 600 steps. With these values 40 % differs, and it
reads them after 300.
"""


class ResidualAttention(Module):
    """Attention of queries to keys with residual connection and post-norm."""

    def __init__(
        self,
        width: int,
        key_width: int,
        heads: int,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key = Linear(key_width, width)
        self.value = Linear(key_width, width)
        self.output = Linear(width, width)
        self.norm = LayerNorm(width, eps=EPSILON)
        _draw(self.query, SHARPNESS)
        _draw(self.key, SHARPNESS)
        _draw(self.value, gain)
        _draw(self.output, 1.0)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """`x` [batch, queries, width] attends to `image` [batch, tokens, key width]."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(self.key(image)),
            self._split(self.value(image)),
        )
        return self.norm(x + self.output(mixed.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _draw(layer: Linear, scale: float) -> None:
    nn.init.normal_(layer.weight, std=scale / math.sqrt(layer.in_features))
    nn.init.zeros_(layer.bias)


class QueryTransformer(Module):
    """One layer: self-attention of queries, cross-attention to the image, feed-forward.

    transformers' Blip2QFormerModel has the same parts and unused text weights. Source: Li et al.,
    BLIP-2, 2023, section 3.1.
    """

    def __init__(self, size: Size, image_width: int) -> None:
        super().__init__()
        width = size.width
        self.entry_norm = LayerNorm(width, eps=EPSILON)
        self.self_attention = ResidualAttention(width, width, size.heads)
        self.cross_attention = ResidualAttention(
            width,
            image_width,
            size.heads,
            GAIN,
        )
        self.widen = Linear(width, size.query_hidden)
        self.narrow = Linear(size.query_hidden, width)
        self.norm = LayerNorm(width, eps=EPSILON)

    def forward(self, queries: Tensor, image: Tensor) -> Tensor:
        """`queries` [batch, queries, width], `image` [batch, tokens, image width]."""
        x = self.entry_norm(queries)
        x = self.self_attention(x, x)
        x = self.cross_attention(x, image)
        return self.norm(x + self.narrow(F.gelu(self.widen(x))))


IGNORE = -100
"""Label excluded from the loss."""

ENCODERS = ("global_encoder", "local_encoder")
"""Parts of the model that stage encoder trains and stage whole takes over."""

CHUNK = 2**26
"""Logits in memory at one time: 256 MiB in float32."""


class DocTranslator(HasFrozenParts):
    """Page image to translation.

    Source: Liang et al., Document Image Machine Translation with Dynamic Multi-pre-trained Models
    Assembling, 2024, section 3.
    """

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        super().__init__()
        image_width = size.local.output_width
        self.global_encoder = global_encoder(size.whole)
        self.local_encoder = local_encoder(size.local)
        self.expand = Linear(size.whole.width, image_width)
        self.queries = Parameter(torch.randn(2, size.queries, size.width) * 0.02)
        self.global_gather = QueryTransformer(size, image_width)
        self.local_gather = QueryTransformer(size, image_width)
        self.gate = Linear(2 * size.width, 1)
        self.project = Linear(size.width, size.width)
        self.decoder: Any = decoder(size, dropout)
        self.rows = max(1, CHUNK // size.vocabulary)

    def forward(
        self,
        page_global: Tensor | None = None,
        page_local: Tensor | None = None,
        memory: Tensor | None = None,
        decoder_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """Encoder memory, logits, or the loss of `labels`.

        Pages alone: the memory [batch, queries, width]. With `decoder_ids` [batch, time]: logits
        [batch, time, vocabulary]. With `labels` [batch, time] as well (-100: excluded):
        cross-entropy in nats, summed over tokens. Requires `page_global` [batch, 3, pixels,
        pixels] and `page_local` [batch, 3, height, width], or their `memory`. With a `cache`,
        `decoder_ids` continue the tokens in it, and are added to it.
        """
        if memory is None:
            memory = self._encode(page_global, page_local)
        if decoder_ids is None:
            return memory
        name = cache_name(self.decoder.bert)  # differs between versions of transformers
        outputs = self.decoder.bert(
            input_ids=decoder_ids,
            encoder_hidden_states=memory,
            use_cache=cache is not None,
            **{name: None if cache is None else cache.state},
        )
        if cache is not None:
            cache.state = getattr(outputs, name)
        hidden = outputs.last_hidden_state
        if labels is None:
            return self.decoder.cls(hidden)

        # By chunks: the logits of one page take 319 MB in the full size.
        hidden = hidden.flatten(0, 1)
        labels = labels.flatten()
        if len(labels) <= self.rows:
            return self._chunk_loss(hidden, labels)
        sums = []
        for x, y in zip(hidden.split(self.rows), labels.split(self.rows), strict=True):
            sums.append(
                checkpoint(
                    self._chunk_loss,
                    x,
                    y,
                    use_reentrant=False,
                )
            )
        return torch.stack(sums).sum()

    def _encode(self, page_global: Tensor | None, page_local: Tensor | None) -> Tensor:
        whole = self.global_encoder(page_global).last_hidden_state
        local = self.local_encoder(page_local).last_hidden_state
        queries = self.queries[:, None].expand(
            -1,
            local.shape[0],
            -1,
            -1,
        )
        whole = self.global_gather(queries[0], self.expand(whole))
        local = self.local_gather(queries[1], local)
        share = torch.sigmoid(self.gate(torch.cat((local, whole), dim=-1)))
        return self.project(share * local + (1 - share) * whole)

    def _chunk_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.decoder.cls(hidden).float()
        return F.cross_entropy(
            logits,
            labels,
            ignore_index=IGNORE,
            reduction="sum",
        )


def layers(model: Module) -> list[Module]:
    """Layers of encoders, query transformers and decoder, in order."""
    return modules_of(model, ["BeitLayer", "DonutSwinLayer", "BertLayer", "QueryTransformer"])
