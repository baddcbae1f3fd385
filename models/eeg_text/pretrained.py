"""The pretrained text decoder of a local folder: its sizes, tokenizer and weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from models.base import DataError
from models.common.stored_tensors import StoredTensor, stored_tensors
from models.common.subwords import TOKENIZER_FILE, load_tokenizer
from models.eeg_text.config import Size
from models.eeg_text.tokenizer import BpeTokenizer

if TYPE_CHECKING:
    from models.eeg_text.network.decoder import TextDecoder

KEY = "model.pretrained"
CONFIG = "config.json"
TYPES = ("bart",)
"""Values of `model_type` whose decoder has the layout of ours."""
ALLOWED = (
    f"a local folder of transformers with {CONFIG} of model_type {' or '.join(TYPES)}, "
    f"*.safetensors and {TOKENIZER_FILE}"
)
_BIAS = "final_logits_bias"
_EMBEDDING = "decoder.embed_tokens.weight"
_RENAMED = {"shared.weight": _EMBEDDING, "decoder.shared.weight": _EMBEDDING}


class PretrainedDecoder:
    """A folder with the decoder of a BART; its encoder is not used."""

    def __init__(self, folder: Path) -> None:
        """Reads config.json. Raises DataError unless its decoder has the layout of ours."""
        self.folder = folder
        self._config = _read_config(folder)

    def size(self, size: Size) -> Size:
        """`size` with the dimensions of this decoder instead of its own."""
        config = self._config
        return replace(
            size,
            text_width=config.d_model,
            text_layers=config.decoder_layers,
            text_heads=config.decoder_attention_heads,
            text_hidden=config.decoder_ffn_dim,
            vocabulary=config.vocab_size,
            text_positions=config.max_position_embeddings + 2,
            text_activation=config.activation_function,
            text_scales=config.scale_embedding,
            text_bias=True,
        )

    def tokenizer(self) -> PretrainedTokenizer:
        """The tokenizer of the folder. Reads the disk; raises DataError."""
        inner = load_tokenizer(self.folder / TOKENIZER_FILE, KEY)
        found = PretrainedTokenizer(inner, self._config.decoder_start_token_id)
        if found.size > self._config.vocab_size:
            raise DataError(
                f"the tokenizer of {KEY} '{self.folder}' has {found.size} entries, and its "
                f"decoder {self._config.vocab_size} embeddings",
                where=str(self.folder / TOKENIZER_FILE),
                allowed="the tokenizer that the decoder was trained with",
            )
        return found

    def load(self, decoder: TextDecoder) -> str:
        """Fill `decoder`, except its bridge, by exact names; returns a summary.

        One tensor at a time is in memory. Reads the disk; raises DataError if a tensor is missing,
        unknown or of another shape.
        """
        own: dict[str, Tensor] = {f"decoder.{n}": p for n, p in decoder.text.named_parameters()}
        stored = self._stored()
        if _BIAS in stored:  # BartModel has none
            assert decoder.logits_bias is not None
            own[_BIAS] = decoder.logits_bias
        wrong = [
            name
            for name in sorted({*own, *stored})
            if name not in own or name not in stored or stored[name].shape != own[name].shape
        ]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(
                f"{KEY} '{self.folder}' is another decoder than its {CONFIG} declares: "
                f"{len(own.keys() - set(wrong))} of {len(own)} tensors match",
                where=wrong[0] + more,
                allowed="exactly the tensors of a text decoder of transformers",
            )
        for name, tensor in own.items():
            stored[name].read_into(tensor)
        return f"loaded {len(own)}/{len(own)} tensors from {self.folder}"

    def _stored(self) -> dict[str, StoredTensor]:
        """The tensors of the decoder in the files of the folder, by their name in BartModel."""
        try:
            found = stored_tensors(self.folder)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{KEY} '{self.folder}' cannot be read: {error}", where=KEY, allowed=ALLOWED
            ) from None
        if not found:
            raise DataError(
                f"{KEY} '{self.folder}' has no *.safetensors",
                where=str(self.folder.absolute()),
                allowed=ALLOWED,
                fix="save it with  model.save_pretrained(FOLDER)  of transformers",
            )
        names = ((name.removeprefix("model."), tensor) for name, tensor in found.items())
        renamed = {_RENAMED.get(name, name): tensor for name, tensor in names}
        return {n: t for n, t in renamed.items() if n.startswith("decoder.") or n == _BIAS}


class PretrainedTokenizer(BpeTokenizer):
    """Gives sentences the beginning that BART was trained on: its start token, then `<s>`."""

    def __init__(self, inner: Any, start: int | None) -> None:
        """`start`: the first input of the decoder; None: the end token, as in BART.

        Raises DataError if a special token is missing.
        """
        super().__init__(inner, "pretrained")
        self._first = self.start
        self.start = self.end if start is None else start

    def encode(self, text: str) -> list[int]:
        tokens = super().encode(text)
        return tokens if self._first == self.start else [self._first, *tokens]


def _read_config(folder: Path) -> Any:
    from transformers import BartConfig

    path = folder / CONFIG
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        kind = read.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{KEY} '{folder}' has no {CONFIG} of transformers: {error}",
            where=str(path.absolute()),
            allowed=ALLOWED,
            fix="download the model first; models are not downloaded by name",
        ) from None
    if kind not in TYPES:
        raise DataError(
            f"{KEY} '{folder}' has model_type '{kind}', whose decoder has another layout",
            where=str(path.absolute()),
            allowed=", ".join(TYPES),
        )
    try:
        config = BartConfig.from_dict(read)
    except Exception as error:  # of many kinds, by version
        raise DataError(
            f"{KEY} '{folder}': {str(error).strip()}", where=str(path.absolute()), allowed=ALLOWED
        ) from None
    if not config.tie_word_embeddings:
        raise DataError(
            f"{KEY} '{folder}' has an output layer of its own",
            where=f"{path.absolute()}: tie_word_embeddings",
            allowed="true: the output is the embedding of tokens",
        )
    return config
