"""Byte-level BPE tokenizer, trained on the training text or loaded, which encodes by words."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from models.base import DataError
from models.common import initial_weights, subwords
from models.common.subwords import TOKENIZER_FILE
from models.language.readers.records import Turn
from models.language.tokenizer import RESERVED, TAGS

_MAX_WORDS = 2**19
"""Words kept with their tokens: about 100 MB."""
_TIMES = 6
"""How much faster texts are encoded by their words than by the library, each on one core."""
_BASIC = 0x10000
"""Code points of the basic plane; a pattern finds them with a table. Of the others only emoji are
cut here."""
_OTHERS = "\U00010000-\U0001f2ff\U0001fb00-\U0010ffff"


class WordTokens:
    """The tokens of a text, several times faster than by the tokenizers library and equal to its.

    Python cuts the text into words, and the library encodes each word once.
    """

    def __init__(self, inner: tokenizers.Tokenizer, dtype: type[np.unsignedinteger[Any]]) -> None:
        """`inner` must be one that `can_cut` accepts; `dtype` holds its tokens."""
        self._inner, self._dtype = inner, dtype
        added = inner.get_added_tokens_decoder()
        self._added = {t.content: self._bytes([i]) for i, t in added.items() if not t.special}
        self._split = re.compile("(" + "|".join(map(re.escape, self._added)) + ")")
        self._tokens = dict(self._added)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The tokens of each text; special tokens written in it are plain text.

        None: the text has characters that only the library can cut.
        """
        batch = list(map(self._cut, texts))
        missing = self._missing(batch)
        if len(self._tokens) + len(missing) > _MAX_WORDS:
            self._tokens = dict(self._added)
            missing = self._missing(batch)
        encodings = self._inner.encode_batch_fast(missing, add_special_tokens=False)
        tokens = (self._bytes(encoding.ids) for encoding in encodings)
        self._tokens.update(zip(missing, tokens, strict=True))
        of_word = self._tokens.__getitem__
        return [
            None if words is None else np.frombuffer(b"".join(map(of_word, words)), self._dtype)
            for words in batch
        ]

    def _cut(self, text: str) -> list[str] | None:
        cut, unknown = _patterns()
        if unknown.search(text):
            return None
        parts = self._split.split(text) if self._added else [text]
        words = ([part] if i % 2 else cut.findall(part) for i, part in enumerate(parts))
        return list(chain.from_iterable(words)) if len(parts) > 1 else next(words)

    def _missing(self, batch: Iterable[list[str] | None]) -> list[str]:
        words = set[str]().union(*(words for words in batch if words is not None))
        return list(words.difference(self._tokens))

    def _bytes(self, tokens: list[int]) -> bytes:
        return np.array(tokens, self._dtype).tobytes()


def _left_to_threads(count: int) -> int:
    """How many of `count` texts the threads of the library encode while one core cuts words."""
    if "TOKENIZERS_PARALLELISM" in os.environ or sys.platform != "linux":
        return 0
    others = len(os.sched_getaffinity(0)) - 1
    return count * others // (others + _TIMES)


def can_cut(inner: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer cuts texts into the words of GPT-2, and encodes each alone."""
    state: dict[str, Any] = json.loads(inner.to_str())
    cut = state["pre_tokenizer"] or {}
    return (
        state["normalizer"] is None
        and state["truncation"] is None
        and state["padding"] is None
        and cut.get("type") == "ByteLevel"
        and cut["use_regex"]
        and not cut["add_prefix_space"]
        and state["model"]["type"] == "BPE"
        and not state["model"].get("dropout")
        and not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in state["added_tokens"])
    )


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What cuts a text into words, and code points whose class depends on the version of Unicode.

    Source of the words: GPT-2's encoder.py, Radford et al., 2019.
    """
    now = _classes(unicodedata.category)
    unknown = now != _classes(unicodedata.ucd_3_2_0.category)
    unknown[0x1C:0x20] = True  # white space in Python only
    letters, numbers = _ranges(now == ord("L")), _ranges(now == ord("N"))
    cut = (
        rf"'(?:s|t|re|ve|m|ll|d)| ?[{letters}]+| ?[{numbers}]+"
        rf"| ?[^\s{letters}{numbers}]+|\s+(?!\S)|\s+"
    )
    return re.compile(cut), re.compile(f"[{_ranges(unknown)}{_OTHERS}]")


def _classes(category: Any) -> np.ndarray:
    """Letter (L), number (N), space (Z) or another (-) for each code point."""
    names = "".join(category(chr(i))[0] for i in range(_BASIC))
    categories = np.frombuffer(names.encode(), np.uint8)
    return np.where(np.isin(categories, list(b"LNZ")), categories, ord("-"))


def _ranges(chosen: np.ndarray) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b - 1))}" for a, b in pairs)


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
        self._words = WordTokens(inner, self._dtype) if can_cut(inner) else None

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
        """As `encode`: the first texts by their words, and meanwhile the rest in other threads."""
        split = len(texts) - _left_to_threads(len(texts)) if self._words is not None else 0
        with ThreadPoolExecutor(1) as executor:
            rest = executor.submit(self._by_library, texts[split:])
            cut = [] if self._words is None else self._words.encode_batch(texts[:split])
            uncut = [text for text, tokens in zip(texts, cut) if tokens is None]  # noqa: B905
            whole = iter(self._by_library(uncut))
            return [next(whole) if tokens is None else tokens for tokens in cut] + rest.result()

    def _by_library(self, texts: Sequence[str]) -> list[np.ndarray]:
        encode = partial(self.inner.encode_batch_fast, add_special_tokens=False)
        # A batch is padded to its longest text where the file says so; a text alone is not.
        alone = (encode([text])[0] for text in texts)
        encodings = alone if self.inner.padding else encode(texts)
        return [np.array(encoding.ids, self._dtype) for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        hidden = {self.pad, self.start, self.end}
        visible = [t for t in map(int, tokens) if t not in hidden]
        return self.inner.decode(visible, skip_special_tokens=False)

    def template(self, before: Sequence[Turn], answer: Turn, tools: str) -> None:
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
