"""Tokenizers of libraries: BPE of tokenizers, trained or from a file, and those of transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from models.base import DataError
from models.common import initial_weights, subwords
from models.common.hub import name_of
from models.common.hugging_face import TOKENIZER_CONFIG, read_tokenizer
from models.common.subwords import TOKENIZER_FILE
from models.language.readers.records import Turn
from models.language.tokenizer import RESERVED, TAGS, Tokenizer

TRAINED_ON = 64 * 2**20
"""Bytes of training text; of longer data, documents at even distances are used."""
PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
SPECIALS = (PAD, START, END, *TAGS, *(f"<|reserved_{i}|>" for i in range(RESERVED)))
_ENDS = (END, "<|endoftext|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_STARTS = (START, "<s>", "<bos>", "<|begin_of_text|>", "[CLS]")
_LARGEST = 64 * 2**20
"""Maximum bytes of a tokenizer file; larger files hold weights."""
_PARENTS = 3
"""A file of weights lies in RUN/checkpoints/STEP/."""


class BpeTokenizer(Tokenizer):
    """A tokenizer of the tokenizers library; special tokens written in a text are plain text."""

    def __init__(self, inner: tokenizers.Tokenizer, name: str = "bpe") -> None:
        """Raises DataError if `inner` has no end-of-text token."""
        self.inner, self.name = inner, name
        # Otherwise "<|end|>" inside a text would end it.
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        # The highest id, because a file may skip ids.
        self.size = max(inner.get_vocab().values()) + 1
        self.start = self._first(_STARTS)
        end = self._first(_ENDS)
        if end is None:
            raise _no_end(name, "model.tokenizer", ", ".join(_ENDS))
        self.end = end
        self.pad = end if (pad := inner.token_to_id(PAD)) is None else pad

    def _first(self, names: Iterable[str]) -> int | None:
        numbers = (self.inner.token_to_id(name) for name in names)
        return next((number for number in numbers if number is not None), None)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return hashlib.sha256(self.inner.to_str().encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encode = partial(self.inner.encode_batch_fast, add_special_tokens=False)
        with subwords.encode_errors(f"model.tokenizer {self.name}"):
            return [_vector(encoding.ids, self.size) for encoding in encode(texts)]

    def decode(self, tokens: Sequence[int]) -> str:
        hidden = {self.pad, self.start, self.end}
        visible = [t for t in map(int, tokens) if t not in hidden]
        return self.inner.decode(visible, skip_special_tokens=False)


class ExternalTokenizer(Tokenizer):
    """Tokenizer of a local Hugging Face folder; no download, no code of the folder is run.

    Special tokens written in a text count as such.
    """

    def __init__(self, folder: Path) -> None:
        """Disk access; raises DataError if the folder has no usable tokenizer."""
        inner: Any = read_tokenizer(folder)
        self._config = str(folder / TOKENIZER_CONFIG)
        if inner.eos_token_id is None:
            raise _no_end(str(folder), self._config, "an eos_token")
        self.inner, self.name, self.folder = inner, name_of(folder), folder
        self.size = len(inner)
        self.start: int | None = inner.bos_token_id
        self.end: int = inner.eos_token_id
        self.pad: int = self.end if inner.pad_token_id is None else inner.pad_token_id

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        digest = hashlib.sha256(version("transformers").encode())
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and file.stat().st_size < _LARGEST:
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
        return digest.hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        with subwords.encode_errors(str(self.folder)):
            numbers = self.inner(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [_vector(n, self.size) for n in numbers]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=True)

    def template(self, before: Sequence[Turn], answer: str) -> tuple[str, str] | None:
        if not self.inner.chat_template:
            return None
        turns = [{"role": turn.role, "content": turn.text} for turn in before]
        render = partial(self.inner.apply_chat_template, tokenize=False)
        try:
            prompt = render(turns, add_generation_prompt=True)
            whole = render([*turns, {"role": "assistant", "content": answer}])
        except Exception as error:  # TemplateError, TypeError and others: a template is a program
            roles = ", ".join(turn.role for turn in before)
            raise DataError(
                f"the chat template fails: {error or type(error).__name__}",
                where=f"{self._config}, for a conversation of {roles}",
                allowed="a template that renders the conversations of data.path",
            ) from None
        is_cut = whole.startswith(prompt)
        return prompt, whole[len(prompt) :].rstrip() if is_cut else answer


def _vector(ids: Sequence[int], size: int) -> np.ndarray:
    return np.array(ids, dtype=np.uint16 if size <= 2**16 else np.uint32)


def _no_end(name: str, where: str, allowed: str) -> DataError:
    return DataError(f"the tokenizer '{name}' has no end-of-text token", where=where, allowed=allowed)


def train(texts: Iterable[str], size: int) -> BpeTokenizer:
    """Train a tokenizer of at most `size` entries; see subwords.train_byte_bpe."""
    inner = subwords.train_byte_bpe(texts, size, SPECIALS)
    state = json.loads(inner.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return BpeTokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))


def load(path: Path) -> Tokenizer:
    """Load the tokenizer of a Hugging Face folder or tokenizer.json. Raises DataError."""
    if path.is_dir():
        return ExternalTokenizer(path)
    return BpeTokenizer(subwords.load_tokenizer(path), path.stem)


def of_start(start: Path) -> BpeTokenizer:
    """The tokenizer of what model.start names, or of the run folder around it. Raises DataError."""
    for folder in (start, *start.absolute().parents[:_PARENTS]):
        path = folder / TOKENIZER_FILE
        # A tokenizer beside weights; one in a folder of other things belongs to something else.
        if path.is_file() and initial_weights.find(folder) is not None:
            return BpeTokenizer(subwords.load_tokenizer(path, str(path)))
    raise DataError(
        f"model.start '{start}' has no {TOKENIZER_FILE}, and model.tokenizer is bpe",
        where="model.start, model.tokenizer",
        allowed=f"a run folder or an export with its {TOKENIZER_FILE}, since weights belong to one",
        fix="--set model.tokenizer=PATH  the tokenizer.json of these weights",
    )
