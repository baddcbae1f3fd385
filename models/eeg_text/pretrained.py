"""The pretrained text decoder of a local folder: its structure, weights and tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from models.base import DataError
from models.common.hugging_face import (
    CONFIG,
    KEY,
    Coverage,
    StoredTensor,
    StoredWeights,
    load_errors,
    read_config,
    weights_of,
    wrong_shape,
)
from models.eeg_text import pretrained_decoder
from models.eeg_text.pretrained_decoder import PretrainedTextDecoder, TextModel
from models.eeg_text.pretrained_tokenizer import PretrainedTokenizer

GENERATION = "generation_config.json"
_GENERATED = ("decoder_start_token_id", "forced_bos_token_id")
"""Keys that newer versions of transformers write into generation_config.json."""
ALLOWED = (
    f"a local folder of transformers with {CONFIG}, *.safetensors and the tokenizer of an "
    "encoder-decoder model of text, such as BART, mBART, T5, Pegasus or Marian"
)


class PretrainedDecoder:
    """A folder with an encoder-decoder model, whose encoder is not used."""

    def __init__(self, folder: Path, kernel: str = "auto") -> None:
        """Reads config.json and names of weights. Raises DataError.

        `kernel`: the value of memory.attention.
        """
        self.folder = folder
        values = _read_values(folder)
        with load_errors(folder, ALLOWED):
            # Names, shapes and ties only.
            with torch.device("meta"):
                self._whole = TextModel(values).whole()
            self._encoder = pretrained_decoder.name_of(self._whole, self._whole.get_encoder())
            self._decoder = pretrained_decoder.name_of(self._whole, self._whole.get_decoder())
            self._stored = StoredWeights(self._whole, folder)
        if not self._stored.tensors:
            raise DataError(
                f"{KEY} '{folder}' has no *.safetensors",
                where=str(folder.absolute()),
                allowed=ALLOWED,
                fix="save it with  model.save_pretrained(FOLDER)  of transformers",
            )
        self._check_experts()
        self._check_kernel(kernel)
        self.model = TextModel(values, self._untied())

    @property
    def context(self) -> int | None:
        """The number of tokens that the decoder has positions for; None: any."""
        return pretrained_decoder.context(self._whole.config)

    @cached_property
    def tokenizer(self) -> PretrainedTokenizer:
        """The tokenizer of the folder. Reads the disk; raises DataError."""
        config = self.model.parsed()
        folder_tokenizer = PretrainedTokenizer(self.folder, self.model)
        entries = config.get_text_config(decoder=True).vocab_size
        if folder_tokenizer.size > entries:
            raise DataError(
                f"the tokenizer of {KEY} '{self.folder}' has {folder_tokenizer.size} entries, "
                f"and its decoder {entries} embeddings",
                where=str(self.folder.absolute()),
                allowed="the tokenizer that the decoder was trained with",
            )
        return folder_tokenizer

    def load(self, decoder: PretrainedTextDecoder) -> str:
        """Fill `decoder`, except its bridge, by exact names; returns a summary.

        One tensor at a time is in memory. Reads the disk; raises DataError if a tensor is missing,
        unknown or of another shape.
        """
        targets = weights_of(decoder.text)
        sources = {name: self._source(name) for name in targets}
        absent = {name for name, source in sources.items() if source is None}
        # Patterns of names that files lack, such as sinusoidal positions.
        optional = getattr(self._whole, "_keys_to_ignore_on_load_missing", None) or ()
        made = {name for name in absent if any(re.search(pattern, name) for pattern in optional)}
        shapes = [
            wrong_shape(name, source.shape, targets[name].shape)
            for name, source in sources.items()
            if source is not None and source.shape != targets[name].shape
        ]
        # Other heads and encoders are not read.
        prefix = f"{self._whole.base_model_prefix}."
        ours = (f"{self._decoder}.", f"{self._decoder}.".removeprefix(prefix))
        unexpected = [name for name in self._stored.unexpected() if name.startswith(ours)]
        if differences := Coverage(sorted(absent - made), shapes, unexpected).render():
            raise DataError(
                f"the weights in {KEY} '{self.folder}' do not fit its {CONFIG}: {differences}",
                where=str((self.folder / CONFIG).absolute()),
                allowed="exactly the tensors of its decoder; those of its encoder are not read",
            )
        for name, source in sources.items():
            if source is not None:
                source.read_into(targets[name])
        drawn = made & {name for name, _ in decoder.text.named_parameters()}
        for owner in {name.rpartition(".")[0] for name in drawn}:
            # The values that transformers starts them with.
            decoder.text._init_weights(decoder.text.get_submodule(owner))
        count = len(targets) - len(made)
        return f"loaded {count}/{count} tensors from {self.folder}"

    def _check_experts(self) -> None:
        """Raise DataError for a mixture of experts: ranks would gather different ones, and hang."""
        parts = self._whole.get_decoder().named_modules()
        if any(name.rpartition(".")[2] == "experts" for name, _ in parts):
            raise DataError(
                f"the decoder of {KEY} '{self.folder}' is a mixture of experts",
                where=str((self.folder / CONFIG).absolute()),
                allowed="a decoder that uses all its weights for each token",
            )

    def _check_kernel(self, kernel: str) -> None:
        if kernel != "auto" and not pretrained_decoder.uses_sdpa(self._whole):
            kind = self._whole.config.model_type
            raise DataError(
                f"memory.attention '{kernel}' has no effect on the decoder of {KEY} "
                f"'{self.folder}': transformers has one kernel for model_type {kind}",
                where="memory.attention",
                allowed="auto",
                fix="--set memory.attention=auto",
            )

    def _group(self, name: str) -> Sequence[str]:
        """The names of the weights tied to `name`, with its own; those in the encoder come last."""
        return sorted(self._stored.tied.get(name, (name,)), key=self._in_encoder)

    def _in_encoder(self, name: str) -> bool:
        return name.startswith(f"{self._encoder}.")

    def _source(self, name: str) -> StoredTensor | None:
        """What the tensor `name` of the decoder is read from; None: the files lack it."""
        untied = self.model.untied
        group = [alias for alias in self._group(name) if alias not in untied]
        names = (name,) if name in untied else group
        return next((tensor for alias in names if (tensor := self._stored.named(alias))), None)

    def _untied(self) -> tuple[str, ...]:
        """The tied parameters of the decoder whose stored values differ from the first one's."""
        names = []
        for name in self._stored.tied:
            ours = [alias for alias in self._group(name) if not self._in_encoder(alias)]
            stored = {n: t for n in ours if (t := self._stored.named(n))}
            first = next(iter(stored.values()), None)
            if first and name in stored and not _is_equal(first, stored[name]):
                names.append(name)
        return tuple(names)


def _is_equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether both are the same tensor, or have equal values. Reads the disk."""
    if first == second:
        return True
    with safe_open(first.path, "pt") as first_file, safe_open(second.path, "pt") as second_file:
        return torch.equal(first_file.get_tensor(first.name), second_file.get_tensor(second.name))


def _read_values(folder: Path) -> dict[str, Any]:
    """The content of config.json, of a kind that is allowed. Raises DataError."""
    config = read_config(folder, ALLOWED)
    if not _writes_text(config):
        kind = config.model_type
        raise DataError(
            f"{KEY} '{folder}' is no encoder-decoder model of text: its model_type is {kind}",
            where=str((folder / CONFIG).absolute()),
            allowed=ALLOWED,
        )
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return values | _generation(folder, [n for n in _GENERATED if values.get(n) is None])


def _writes_text(config: Any) -> bool:
    """Whether transformers has a model of text with an encoder and a decoder for `config`."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return False
    model: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)]
    return "decoder_input_ids" in signature(model.forward).parameters


def _generation(folder: Path, names: Sequence[str]) -> dict[str, int]:
    try:
        values = json.loads((folder / GENERATION).read_text(encoding="utf-8"))
        tokens = {name: values.get(name) for name in names}
    except (OSError, ValueError, AttributeError):
        return {}
    return {name: token for name, token in tokens.items() if isinstance(token, int)}
