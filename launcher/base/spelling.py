"""Names that were misspelt, by a letter or two: only needed for errors."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option that `word` misspells, or None; ignores case and what separates words.

    Only letters count: of two names with one other word, each means something of its own.
    """
    match = None
    fewest = 3
    for option in options:
        edits = _misspelt(word, option)
        if edits is not None and edits < fewest:
            match = option
            fewest = edits
    return match


_WORD = re.compile(r"[^\W_]+")


def _misspelt(typed: str, name: str) -> int | None:
    """By how many letters `typed` differs from `name`; None: by a word, or by many letters."""
    words = _WORD.findall(typed.lower())
    expected = _WORD.findall(name.lower())
    if "".join(words) == "".join(expected):
        return 0
    if len(words) != len(expected):
        return None
    total = 0
    for word, other in zip(words, expected, strict=True):
        edits = _edits(word, other)
        longest = max(len(word), len(other))
        most = 2 if longest > _SHORT_WORD else 1
        # Each letter makes another word, but for a unit that is left out.
        if longest <= 2 and not other[0].isdigit():
            most = 0
        if edits > most:
            return None
        total += edits
    return total


_SHORT_WORD = 5
"""Letters up to which a single one may be wrong."""


def _edits(word: str, other: str) -> int:
    """Letters to insert, remove, replace or swap; many if digits differ, which have a meaning."""
    if word != other and sorted(word) == sorted(other):  # swapped, the most frequent typo
        return 1
    if sorted(filter(str.isdigit, word)) != sorted(filter(str.isdigit, other)):
        return len(word)
    if len(word) == len(other):
        return sum(map(operator.ne, word, other))
    blocks = SequenceMatcher(None, word, other).get_matching_blocks()
    return len(word) + len(other) - 2 * sum(block.size for block in blocks)
