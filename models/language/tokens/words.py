"""Encoding by words: byte-level BPE encodes each word alone, and most words come again."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import tokenizers

_MAX_WORDS = 2**19
"""Words kept with their tokens: about 100 MB."""
_BASIC = 0x10000
"""Code points of the basic plane; a pattern finds them with a table. Of the others only emoji are
cut here."""
_OTHERS = "\U00010000-\U0001f2ff\U0001fb00-\U0010ffff"


class Words:
    """The tokens of a text, several times faster than by the tokenizers library and equal to its.

    Python cuts the text into words, and the library encodes each word once.
    """

    def __init__(self, inner: tokenizers.Tokenizer, dtype: type[np.unsignedinteger[Any]]) -> None:
        """`inner` must be one that `can_cut` accepts; `dtype` holds its tokens."""
        self._inner, self._dtype = inner, dtype
        self._tokens: dict[str, bytes] = {}
        added = inner.get_added_tokens_decoder()
        self._added = {t.content: self._bytes([i]) for i, t in added.items() if not t.special}
        self._split = re.compile("(" + "|".join(map(re.escape, self._added)) + ")")

    def encode(self, text: str) -> np.ndarray | None:
        """The tokens of `text`; special tokens written in it are plain text.

        None: the text has characters that only the library can cut.
        """
        cut, unknown = _patterns()
        if unknown.search(text):
            return None
        parts = self._split.split(text) if self._added else [text]
        tokens = [
            self._added[part] if i % 2 else self._encode(cut.findall(part))
            for i, part in enumerate(parts)
        ]
        return np.frombuffer(b"".join(tokens), self._dtype)

    def _encode(self, words: list[str]) -> bytes:
        if missing := set(words).difference(self._tokens):
            if len(self._tokens) + len(missing) > _MAX_WORDS:
                self._tokens.clear()
                missing = set(words)
            new = list(missing)
            found = self._inner.encode_batch_fast(new, add_special_tokens=False)
            tokens = (self._bytes(one.ids) for one in found)
            self._tokens.update(zip(new, tokens, strict=True))
        return b"".join(map(self._tokens.__getitem__, words))

    def _bytes(self, tokens: list[int]) -> bytes:
        return np.array(tokens, self._dtype).tobytes()


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
    found = np.frombuffer(names.encode(), np.uint8)
    return np.where(np.isin(found, list(b"LNZ")), found, ord("-"))


def _ranges(chosen: np.ndarray) -> str:
    """The code points as ranges within the brackets of a pattern."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b - 1))}" for a, b in pairs)
