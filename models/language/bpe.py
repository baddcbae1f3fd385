"""Byte-level BPE tokenizer, trained on the training text or loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import tokenizers

from models.base import DataError
from models.common import initial_weights, subwords
from models.common.subwords import TOKENIZER_FILE
from models.language.readers.records import Turn
from models.language.tokenizer import RESERVED, TAGS

TRAINED_ON = 64 * 2**20
"""Bytes of training text; of longer data, documents at even distances are used."""
PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
SPECIALS = (PAD, START, END, *TAGS, *(f"<|reserved_{i}|>" for i in range(RESERVED)))
_ENDS = (END, "<|endoftext|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_STARTS = (START, "<s>", "<bos>", "<|begin_of_text|>", "[CLS]")


class BpeTokenizer:
    """A tokenizer of the tokenizers library."""

    leading_space = True

    def __init__(self, inner: tokenizers.Tokenizer, name: str) -> None:
        """Raises DataError if `inner` has no end-of-text token."""
        self.inner, self.name = inner, name
        # Otherwise "<|end|>" inside a text would end it.
        inner.encode_special_tokens = True
        # The highest id, because a file may skip ids.
        self.size = max(inner.get_vocab().values()) + 1
        self.start = self._first(_STARTS)
        end = self._first(_ENDS)
        if end is None:
            raise DataError(
                f"tokenizer '{name}' has no end-of-text token",
                where="model.tokenizer",
                allowed=", ".join(_ENDS),
            )
        self.end = end
        pad = inner.token_to_id(PAD)
        self.pad = end if pad is None else pad
        self._dtype = np.uint16 if self.size <= 2**16 else np.uint32

    def _first(self, names: Iterable[str]) -> int | None:
        numbers = (self.inner.token_to_id(name) for name in names)
        return next((number for number in numbers if number is not None), None)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.inner.to_str().encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """Tokens of `text`; special tokens written in it are plain text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encode = partial(self.inner.encode_batch_fast, add_special_tokens=False)
        with subwords.encode_errors(f"model.tokenizer {self.name}"):
            # A batch is padded to its longest text where the file says so; a text alone is not.
            alone = (encode([text])[0] for text in texts)
            encodings = alone if self.inner.padding else encode(texts)
            return [np.array(encoding.ids, self._dtype) for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        hidden = {self.pad, self.start, self.end}
        visible = [t for t in map(int, tokens) if t not in hidden]
        return self.inner.decode(visible, skip_special_tokens=False)

    def template(self, before: Sequence[Turn], answer: Turn) -> None:
        """None: no chat template."""
        return None


def train(texts: Iterable[str], size: int) -> BpeTokenizer:
    """Train a tokenizer of at most `size` entries; see subwords.train_byte_bpe."""
    inner = subwords.train_byte_bpe(texts, size, SPECIALS)
    state = json.loads(inner.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return BpeTokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)), "bpe")


def load(path: Path, name: str) -> BpeTokenizer:
    """Load a tokenizer.json. Disk access; raises DataError if it is invalid."""
    return BpeTokenizer(subwords.load_tokenizer(path), name)


def load_from_run(folder: Path | None) -> BpeTokenizer:
    """Load the tokenizer of a run folder. Disk access; raises DataError."""
    path = folder / TOKENIZER_FILE if folder else None
    if path is None or not path.exists():
        raise DataError(
            "the tokenizer of the run does not exist",
            where=str(path.absolute()) if path else "a checkpoint without a run folder",
            allowed=f"a run folder with its {TOKENIZER_FILE}",
        )
    return load(path, "bpe")


def load_or_train(texts: Iterable[str], size: int, folder: Path | None) -> BpeTokenizer:
    """Load the tokenizer of the run folder; if there is none, train and store it there."""
    return BpeTokenizer(subwords.load_or_fit(folder, lambda: train(texts, size).inner), "bpe")


def load_or_copy(start: Path, folder: Path | None) -> BpeTokenizer:
    """Load the tokenizer of the run folder; if there is none, copy that of `start` there.

    `start`: what model.start names, or the run folder around it. Disk access; raises DataError.
    """
    return BpeTokenizer(subwords.load_or_fit(folder, lambda: _of_start(start)), "bpe")


_PARENTS = 3
"""A file of weights lies in RUN/checkpoints/STEP/."""


def _of_start(start: Path) -> tokenizers.Tokenizer:
    for folder in (start, *start.absolute().parents[:_PARENTS]):
        path = folder / TOKENIZER_FILE
        # A tokenizer beside weights; one in a folder of other things belongs to something else.
        if path.is_file() and initial_weights.find(folder) is not None:
            return subwords.load_tokenizer(path, str(path))
    raise DataError(
        f"model.start '{start}' has no {TOKENIZER_FILE}, and model.tokenizer is bpe",
        where="model.start, model.tokenizer",
        allowed=f"a run folder or an export with its {TOKENIZER_FILE}, since weights belong to one",
        fix="--set model.tokenizer=PATH  the tokenizer.json of these weights",
    )
