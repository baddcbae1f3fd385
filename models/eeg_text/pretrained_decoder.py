"""The text decoder of an encoder-decoder model of transformers, of any architecture."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.common.hugging_face import without_values
from models.common.layers import restrict_blocks

_DROPOUT = ("dropout", "dropout_rate", "hidden_dropout_prob", "resid_pdrop", "embd_pdrop")
_NO_DROPOUT = (
    *("attention_dropout", "activation_dropout", "attention_probs_dropout_prob", "attn_pdrop"),
    # A dropped layer would be another one on each rank, whose collectives would not match.
    *("decoder_layerdrop", "layerdrop"),
)
_CONTEXT = ("max_decoder_position_embeddings", "max_position_embeddings")


@dataclass(frozen=True)
class TextModel:
    """An encoder-decoder model of transformers, as far as its structure depends on its folder."""

    config: dict[str, Any]
    """The content of its config.json."""
    untied: Sequence[str] = ()
    """Weights that its architecture ties to others, but whose stored values differ: T5 1.1."""

    def parsed(self, dropout: float = 0.0) -> Any:
        """The configuration object, with `dropout` for all layers.

        Raises what transformers raises.
        """
        from transformers import CONFIG_MAPPING

        root = CONFIG_MAPPING[self.config["model_type"]].from_dict(copy.deepcopy(self.config))
        for config in _parts(root):
            for name in (*_DROPOUT, *_NO_DROPOUT):
                if hasattr(config, name):
                    setattr(config, name, dropout if name in _DROPOUT else 0.0)
        return root

    def whole(self, dropout: float = 0.0) -> Any:
        """The model with its encoder; the values of its weights are undefined."""
        from transformers import AutoModelForSeq2SeqLM

        inner = without_values(AutoModelForSeq2SeqLM, self.parsed(dropout))
        for name in self.untied:
            owner, _, leaf = name.rpartition(".")
            weight = inner.get_parameter(name)
            inner.get_submodule(owner).register_parameter(
                leaf, nn.Parameter(torch.empty_like(weight))
            )
        return inner.float()


def _parts(config: Any) -> Iterator[Any]:
    from transformers import PretrainedConfig

    yield config
    for part in vars(config).values():
        if isinstance(part, PretrainedConfig):
            yield from _parts(part)


def context(config: Any) -> int | None:
    """The number of tokens that the decoder has positions for; None: it has relative positions."""
    both = (config, config.get_text_config(decoder=True))
    counts = (getattr(part, name, None) for name in _CONTEXT for part in both)
    return next((count for count in counts if count is not None), None)


def name_of(inner: nn.Module, part: nn.Module) -> str:
    """The name of the module `part` in `inner`."""
    return next(name for name, module in inner.named_modules() if module is part)


def uses_sdpa(inner: Any) -> bool:
    """Whether the decoder of `inner` computes attention by scaled_dot_product_attention."""
    config = getattr(inner.get_decoder(), "config", inner.config)
    return bool(config._attn_implementation == "sdpa")


class NoEncoder(nn.Module):
    """What is left of an encoder: its configuration, which some models look up."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def without_encoder(inner: Any) -> Any:
    """`inner` with NoEncoder instead of its encoder, and embeddings of its encoder frozen."""
    encoder = inner.get_encoder()
    config = getattr(encoder, "config", inner.config)
    inner.set_submodule(name_of(inner, encoder), NoEncoder(config))
    used = {id(parameter) for parameter in inner.get_decoder().parameters()}
    for name, parameter in inner.named_parameters():
        if name.endswith("shared.weight") and id(parameter) not in used:
            parameter.requires_grad_(False)  # engines expect a gradient otherwise
    return inner


class PretrainedTextDecoder(nn.Module):
    """Logits of the next token from hidden states of EEG and the previous tokens.

    Output layer, biases, positions and scales are those of transformers.
    """

    def __init__(self, width: int, model: TextModel, dropout: float, kernel: str = "auto") -> None:
        """`width`: that of the hidden states. The values of the text decoder are undefined."""
        super().__init__()
        text = without_encoder(model.whole(dropout))
        encoder: NoEncoder = text.get_encoder()
        self.bridge = nn.Linear(width, encoder.config.get_text_config().hidden_size)
        self.text = text
        restrict_blocks(self.layers, kernel)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers of the text decoder in order."""
        parts = self.text.get_decoder().modules()
        return list(next(part for part in parts if isinstance(part, nn.ModuleList)))

    def forward(self, memory: Tensor, valid: Tensor, ids: Tensor) -> Tensor:
        """As TextDecoder.forward."""
        from transformers.modeling_outputs import MoEModelOutput

        outputs = self.text(
            # The type with most fields: some models look up more than the states.
            encoder_outputs=MoEModelOutput(last_hidden_state=self.bridge(memory)),
            attention_mask=valid.long(),
            decoder_input_ids=ids,
            use_cache=False,
        )
        logits: Tensor = outputs.logits
        return logits
