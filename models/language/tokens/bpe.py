"""Byte-level BPE: trained on the run's own text, or read from a tokenizer.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from models.base import DataError
from models.common import subwords
from models.common.subwords import TOKENIZER_FILE
from models.language.readers.records import Turn
from models.language.tokens.tokenizer import RESERVED, TAGS

TRAINED_ON = 64 * 2**20
"""Bytes of text that are enough: of longer data every so many documents are taken, all over it."""
PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
SPECIALS = (PAD, START, END, *TAGS, *(f"<|reserved_{i}|>" for i in range(RESERVED)))
_ENDS = (END, "<|endoftext|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_STARTS = (START, "<s>", "<bos>", "<|begin_of_text|>", "[CLS]")


class BpeTokenizer:
    """A tokenizer of the tokenizers library."""

    blank_leads = True

    def __init__(self, inner: tokenizers.Tokenizer, name: str) -> None:
        """Raises DataError if `inner` has no token that ends a text."""
        self.inner, self.name = inner, name
        # Else a text that speaks of <|end|> would end there.
        inner.encode_special_tokens = True
        # The highest number decides: a file may leave some out.
        self.size = max(inner.get_vocab().values()) + 1
        self.start = self._first(_STARTS)
        end = self._first(_ENDS)
        if end is None:
            raise DataError(
                f"tokenizer '{name}' has no token that ends a text",
                where="model.tokenizer",
                allowed=" ".join(_ENDS),
            )
        self.end = end
        pad = inner.token_to_id(PAD)
        self.pad = end if pad is None else pad

    def _first(self, names: Iterable[str]) -> int | None:
        found = (self.inner.token_to_id(name) for name in names)
        return next((number for number in found if number is not None), None)

    @cached_property
    def digest(self) -> str:
        """See Tokenizer."""
        return hashlib.sha256(self.inner.to_str().encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`; one that looks like a special token in it is plain text."""
        numbers = self.inner.encode(text, add_special_tokens=False).ids
        return np.array(numbers, dtype=np.uint16 if self.size <= 2**16 else np.uint32)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        hidden = {self.pad, self.start, self.end}
        kept = [t for t in map(int, tokens) if t not in hidden]
        return self.inner.decode(kept, skip_special_tokens=False)

    def template(self, before: Sequence[Turn], answer: str) -> None:
        """None: the family's own form."""
        return None


def train(texts: Iterable[str], size: int) -> BpeTokenizer:
    """A tokenizer of at most `size` entries; see subwords.train_byte_bpe."""
    inner = subwords.train_byte_bpe(texts, size, SPECIALS)
    state = json.loads(inner.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return BpeTokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)), "bpe")


def load(path: Path, name: str) -> BpeTokenizer:
    """The tokenizer of a tokenizer.json. Reads from disk; raises DataError if it is none."""
    return BpeTokenizer(subwords.load_tokenizer(path), name)


def load_kept(folder: Path | None) -> BpeTokenizer:
    """The tokenizer that a run was trained with. Reads from disk; raises DataError."""
    if folder is None or not (folder / TOKENIZER_FILE).exists():
        raise DataError(
            "the tokenizer of the run is not there",
            where=f"looked for {folder / TOKENIZER_FILE}"
            if folder
            else "a checkpoint without a run folder",
            allowed=f"the run folder with its {TOKENIZER_FILE}",
        )
    return load(folder / TOKENIZER_FILE, "bpe")


def load_or_train(texts: Iterable[str], size: int, folder: Path | None) -> BpeTokenizer:
    """The tokenizer of the run folder; trained and kept there if it holds none yet."""
    return BpeTokenizer(subwords.load_or_fit(folder, lambda: train(texts, size).inner), "bpe")
