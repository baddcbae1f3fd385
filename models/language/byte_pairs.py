"""Byte-level BPE by tiktoken, where it gives the tokens of the tokenizers library sooner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # of GPT-2
)
_UNUSED = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)
"""Options of a BPE that tiktoken does not have."""


class BytePairs:
    """Encodes texts as a tokenizer of the tokenizers library does, in a fifth of its time.

    That library maps bytes to letters and keeps where each came from; 8 MB of Python source take it
    3.6 s on one core, 0.1 of them for the conversion to arrays.
    """

    def __init__(self, inner: tokenizers.Tokenizer, encoding: Any, tags: Sequence[str]) -> None:
        """`tags`: the texts that are one token each, which tiktoken does not know."""
        self._inner = inner
        self._encoding = encoding
        self._tags = tags

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`, without special tokens."""
        if any(tag in text for tag in self._tags):
            return list(self._inner.encode(text, add_special_tokens=False).ids)
        return list(self._encoding.encode_ordinary(text))


def byte_pairs(inner: tokenizers.Tokenizer) -> BytePairs | None:
    """None: tiktoken is not installed, or it may have other tokens than `inner`."""
    try:
        tiktoken = import_module("tiktoken")
    except ImportError:
        return None
    state = json.loads(inner.to_str())
    added = {token["content"]: token["special"] for token in state["added_tokens"]}
    ranks = _ranks(state, added)
    if ranks is None:
        return None
    encoding = tiktoken.Encoding(
        "byte pairs",
        pat_str=_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={},
    )
    # Special tokens in a text are plain text.
    tags = [content for content, is_special in added.items() if not is_special]
    return BytePairs(inner, encoding, tags)


def _ranks(state: Mapping[str, Any], added: Mapping[str, bool]) -> dict[bytes, int] | None:
    """The token of each sequence of bytes; None: no byte-level BPE with its merges in order.

    `state`: a tokenizer.json. tiktoken merges any two tokens whose bytes are a token, the lowest
    one first; tokenizers only the pairs of its list, the first of it first. Both do the same if the
    list is in the order of tokens, and has the very pair that tiktoken merges to each of them.
    """
    model = state["model"]
    splits = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if state["normalizer"] or state["pre_tokenizer"] != {**splits, "use_regex": True}:
        return None
    if model["type"] != "BPE" or any(model[option] for option in _UNUSED):
        return None
    vocabulary = model["vocab"]
    merged = [vocabulary[left + right] for left, right in model["merges"]]
    letters = {letter: byte for byte, letter in enumerate(_letters())}

    def to_bytes(word: str) -> bytes:
        return bytes(letters[letter] for letter in word)

    ranks = {}
    for word, token in vocabulary.items():
        if word not in added:
            ranks[to_bytes(word)] = token
    is_complete = len(ranks) == len(letters) + len(merged)
    if not is_complete or merged != sorted(set(merged)):
        return None
    for pair in model["merges"]:
        if _last_pair(to_bytes("".join(pair)), ranks) != list(map(to_bytes, pair)):
            return None
    return ranks


def _last_pair(word: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What tiktoken merges `word` to, before its last merge; more than two parts: never a token."""
    parts = [word[place : place + 1] for place in range(len(word))]
    while len(parts) > 2:
        pairs = list(map(bytes.__add__, parts, parts[1:]))
        lowest = min(ranks.get(pair, ranks[word]) for pair in pairs)
        if lowest >= ranks[word]:
            break
        place = next(i for i, pair in enumerate(pairs) if ranks.get(pair) == lowest)
        parts[place : place + 2] = [pairs[place]]
    return parts


def _letters() -> str:
    """The letter that stands for each byte: itself if it is visible, or else one above 255."""
    invisible = iter(range(256, 512))
    visible = pre_tokenizers.ByteLevel.alphabet()
    letters = ""
    for byte in range(256):
        letter = chr(byte)
        letters += letter if letter in visible else chr(next(invisible))
    return letters
