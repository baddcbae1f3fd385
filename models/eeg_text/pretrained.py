"""The pretrained text decoder of a local folder: its structure, weights and tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.base import DataError
from models.common.pretrained_weights import Coverage, StoredTensor, quiet, stored_tensors
from models.eeg_text import pretrained_decoder
from models.eeg_text.pretrained_decoder import PretrainedTextDecoder, TextModel
from models.eeg_text.pretrained_tokenizer import PretrainedTokenizer

KEY = "model.pretrained"
CONFIG, GENERATION = "config.json", "generation_config.json"
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
        values = _read_config(folder)
        self._stored = _read_names(folder)
        try:
            # Names, shapes and ties only.
            with torch.device("meta"), quiet():
                self._whole = TextModel(values).whole()
            self._encoder = pretrained_decoder.name_of(self._whole, self._whole.get_encoder())
            self._decoder = pretrained_decoder.name_of(self._whole, self._whole.get_decoder())
        except Exception as error:  # of many kinds, by version and architecture
            raise _unloadable(folder, error) from None
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
        buffers = _buffers(decoder.text)
        targets = dict(decoder.text.named_parameters()) | buffers
        sources = {name: self._source(name) for name in targets}
        absent = {name for name, source in sources.items() if source is None}
        made = {name for name in absent if _matches(self._optional, name)}
        self._check(
            Coverage(
                sorted(absent - made),
                [
                    f"{name} {list(source.shape)} instead of {list(targets[name].shape)}"
                    for name, source in sources.items()
                    if source is not None and source.shape != targets[name].shape
                ],
                self._unexpected(),
            )
        )
        for name, source in sources.items():
            if source is not None:
                source.read_into(targets[name])
        _initialize(decoder.text, made - {*buffers})
        count = len(targets) - len(made)
        return f"loaded {count}/{count} tensors from {self.folder}"

    def _check(self, coverage: Coverage) -> None:
        if differences := coverage.render():
            raise DataError(
                f"the weights in {KEY} '{self.folder}' do not fit its {CONFIG}: {differences}",
                where=str((self.folder / CONFIG).absolute()),
                allowed="exactly the tensors of its decoder; those of its encoder are not read",
            )

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

    @property
    def _optional(self) -> Sequence[str]:
        """Patterns of names that files lack, such as sinusoidal positions."""
        return tuple(getattr(self._whole, "_keys_to_ignore_on_load_missing", None) or ())

    @cached_property
    def _aliases(self) -> Mapping[str, Sequence[str]]:
        """For each parameter of the whole model, the names of those tied to it, with its own.

        Names in the encoder come last.
        """
        groups: dict[int, list[str]] = {}
        for name, parameter in self._whole.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), []).append(name)
        ordered = (sorted(group, key=self._in_encoder) for group in groups.values())
        return {name: group for group in ordered for name in group}

    def _in_encoder(self, name: str) -> bool:
        return name.startswith(f"{self._encoder}.")

    def _named(self, name: str) -> StoredTensor | None:
        """The stored tensor of that name; files of a base model lack a prefix."""
        short = name.removeprefix(f"{self._whole.base_model_prefix}.")
        return self._stored.get(name) or self._stored.get(short)

    def _source(self, name: str) -> StoredTensor | None:
        """What the tensor `name` of the decoder is read from; None: the files lack it."""
        names = (name,) if name in self.model.untied else self._aliases.get(name, (name,))
        aliases = (alias for alias in names if alias == name or alias not in self.model.untied)
        return next((tensor for alias in aliases if (tensor := self._named(alias))), None)

    def _untied(self) -> tuple[str, ...]:
        """The tied parameters of the decoder whose stored values differ from the first one's."""
        names = []
        for name, group in self._aliases.items():
            stored = {n: t for n in group if not self._in_encoder(n) and (t := self._named(n))}
            first = next(iter(stored.values()), None)
            if first and name in stored and not _is_equal(first, stored[name]):
                names.append(name)
        return tuple(names)

    def _unexpected(self) -> list[str]:
        """The stored tensors that the decoder lacks; other heads and encoders are not read."""
        prefix = f"{self._whole.base_model_prefix}."
        ours = (f"{self._decoder}.", f"{self._decoder}.".removeprefix(prefix))
        known = {*self._aliases, *(name for name, _ in self._whole.named_buffers())}
        known |= {name.removeprefix(prefix) for name in known}
        ignored = tuple(getattr(self._whole, "_keys_to_ignore_on_load_unexpected", None) or ())
        return sorted(
            name
            for name in self._stored
            if name.startswith(ours) and name not in known and not _matches(ignored, name)
        )


def _buffers(inner: nn.Module) -> dict[str, Tensor]:
    stored = inner.state_dict()
    return {name: buffer for name, buffer in inner.named_buffers() if name in stored}


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _initialize(inner: Any, names: set[str]) -> None:
    """Give the parameters `names` the values that transformers starts them with."""
    for owner in {name.rpartition(".")[0] for name in names}:
        inner._init_weights(inner.get_submodule(owner))


def _is_equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether both are the same tensor, or have equal values. Reads the disk."""
    if first == second:
        return True
    with safe_open(first.path, "pt") as first_file, safe_open(second.path, "pt") as second_file:
        return torch.equal(first_file.get_tensor(first.name), second_file.get_tensor(second.name))


def _read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, of a kind that is allowed. Raises DataError."""
    from transformers import CONFIG_MAPPING

    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{KEY} '{folder}' has no {CONFIG} of transformers: {error}",
            where=str(path.absolute()),
            allowed=ALLOWED,
            fix="download the model first; models are not downloaded by name",
        ) from None
    if kind not in CONFIG_MAPPING:
        raise DataError(
            f"{KEY} '{folder}' has model_type '{kind}', which transformers does not have",
            where=str(path.absolute()),
            allowed=ALLOWED,
        )
    try:
        config = TextModel(values).parsed()
    except Exception as error:  # of many kinds, by version
        raise _unloadable(folder, error) from None
    if not _writes_text(config):
        raise DataError(
            f"{KEY} '{folder}' is no encoder-decoder model of text: its model_type is {kind}",
            where=str(path.absolute()),
            allowed=ALLOWED,
        )
    return dict(values) | _generation(folder, [n for n in _GENERATED if values.get(n) is None])


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


def _read_names(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in the files of the folder. Raises DataError if there are none."""
    try:
        tensors = stored_tensors(folder)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{KEY} '{folder}' cannot be read: {error}", where=KEY, allowed=ALLOWED
        ) from None
    if not tensors:
        raise DataError(
            f"{KEY} '{folder}' has no *.safetensors",
            where=str(folder.absolute()),
            allowed=ALLOWED,
            fix="save it with  model.save_pretrained(FOLDER)  of transformers",
        )
    return tensors


def _unloadable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{KEY} '{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}",
        where=str((folder / CONFIG).absolute()),
        allowed=ALLOWED,
    )
