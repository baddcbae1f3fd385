"""An artificial language to read, and the one to write: words, sentences and how they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SUFFIXES = ("a", "o", "e")
"""What an adjective ends in, by the kind of heading it stands below."""

_SOURCE = ("bcdfghjklmnprstvwz", "aeiou", "bdfgklmnprstvxz")
_TARGET = ("ptkmnlrsh", "aeiou", "nlrsmk")


@dataclass(frozen=True)
class Word:
    """A word and its translation, an adjective's without its ending."""

    read: str
    written: str


@dataclass(frozen=True)
class Sentence:
    """What stands on the page, and what it means below each kind of heading."""

    read: str
    written: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """All words, by kind."""

    nouns: tuple[Word, ...]
    adjectives: tuple[Word, ...]
    verbs: tuple[Word, ...]
    joints: tuple[Word, ...]


def lexicon(rng: np.random.Generator, counts: tuple[int, int, int, int]) -> Lexicon:
    """So many nouns, adjectives, verbs and words between them; no two are alike."""
    total = sum(counts)
    read = _distinct(rng, total, _SOURCE, (1, 2))
    written = _distinct(rng, total, _TARGET, (2, 3))
    words = [Word(a, b) for a, b in zip(read, written, strict=True)]
    edges = np.cumsum((0, *counts))
    kinds = [tuple(words[a:b]) for a, b in pairwise(edges)]
    return Lexicon(*kinds)


def _distinct(
    rng: np.random.Generator, count: int, letters: Sequence[str], syllables: tuple[int, int]
) -> list[str]:
    found: dict[str, None] = {}
    first, vowel, last = letters
    while len(found) < count:
        parts = int(rng.integers(syllables[0], syllables[1] + 1))
        word = "".join(_pick(rng, first) + _pick(rng, vowel) for _ in range(parts))
        found[word + _pick(rng, last)] = None
    return list(found)


def _pick(rng: np.random.Generator, letters: str) -> str:
    return letters[int(rng.integers(len(letters)))]


def phrase(noun: Word, adjective: Word) -> Sentence:
    """Adjective before noun, to be written the other way round, with the ending that agrees."""
    written = tuple(f"{noun.written} {adjective.written}{suffix}" for suffix in SUFFIXES)
    return Sentence(f"{adjective.read} {noun.read}", written)


def joined(parts: Sequence[Sentence | Word], end: str) -> Sentence:
    """Parts word by word; the first letter is large in both languages."""
    read = " ".join(part.read for part in parts)
    written = [
        " ".join(part.written if isinstance(part, Word) else part.written[kind] for part in parts)
        for kind in range(len(SUFFIXES))
    ]
    return Sentence(_begun(read) + end, tuple(_begun(text) + end for text in written))


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]
