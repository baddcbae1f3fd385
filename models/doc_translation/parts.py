"""The encoders and the decoder, as transformers builds them, with weights nobody has trained."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from models.doc_translation.config import GlobalEncoder, LocalEncoder, Size

LAYERS = ("BeitLayer", "DonutSwinLayer", "BertLayer")
"""The classes of the layers of the three. By name: where they stand differs between versions."""


def _deviation(width: int) -> float:
    """Of first weights: as narrow layers need it, and near BERT's 0.02 for wide ones.

    Source: Nguyen and Salazar, Transformers without Tears, 2019.
    """
    return math.sqrt(2 / (5 * width))


def global_encoder(size: GlobalEncoder) -> Any:
    """A DiT, which is a BEiT with learned absolute positions.

    Its mask token belongs to masked pre-training and is frozen. Source: Li et al., DiT, 2022.
    """
    from transformers import BeitConfig, BeitModel

    config = BeitConfig(
        image_size=size.pixels,
        patch_size=size.patch,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.hidden,
        use_mask_token=True,
        use_absolute_position_embeddings=True,
        use_relative_position_bias=False,
        use_mean_pooling=False,  # else there is no final norm
        layer_scale_init_value=0.1,
        drop_path_rate=0.0,
        initializer_range=_deviation(size.width),
    )
    encoder: Any = BeitModel(config, add_pooling_layer=False)
    # transformers begins with zeros: positions would be learnt late.
    nn.init.normal_(encoder.embeddings.position_embeddings, std=0.02)
    encoder.embeddings.mask_token.requires_grad_(False)
    return encoder


def local_encoder(size: LocalEncoder) -> Any:
    """A Swin transformer as Donut and Nougat have it: without a norm at its end.

    Source: Blecher et al., Nougat, 2023.
    """
    from transformers import DonutSwinConfig, DonutSwinModel

    config = DonutSwinConfig(
        image_size=list(size.pixels),
        patch_size=4,
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
    """A BERT that looks at a memory and only at earlier tokens, its output tied to its input."""
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
