"""Artificial source and target language: words, phrases and their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SUFFIXES = ("a", "o", "e")
"""Endings of adjectives in the target language, by kind of heading."""

_SOURCE = ("bcdfghjklmnprstvwz", "aeiou", "bdfgklmnprstvxz")
_TARGET = ("ptkmnlrsh", "aeiou", "nlrsmk")


@dataclass(frozen=True)
class Word:
    """A word and its translation; that of an adjective lacks its ending."""

    read: str
    written: str


@dataclass(frozen=True)
class Sentence:
    """Source text, and its translation under each kind of heading."""

    read: str
    written: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """All words by kind."""

    nouns: tuple[Word, ...]
    adjectives: tuple[Word, ...]
    verbs: tuple[Word, ...]
    joints: tuple[Word, ...]


def lexicon(rng: np.random.Generator, counts: tuple[int, int, int, int]) -> Lexicon:
    """Generate distinct nouns, adjectives, verbs and joints in these `counts`."""
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
    """Adjective and noun; the translation has noun first and an agreeing ending."""
    written = tuple(f"{noun.written} {adjective.written}{suffix}" for suffix in SUFFIXES)
    return Sentence(f"{adjective.read} {noun.read}", written)


def joined(parts: Sequence[Sentence | Word], end: str) -> Sentence:
    """Join `parts` into a sentence that starts with a capital letter in both languages."""
    read = " ".join(part.read for part in parts)
    written = [
        " ".join(part.written if isinstance(part, Word) else part.written[kind] for part in parts)
        for kind in range(len(SUFFIXES))
    ]
    return Sentence(_capitalized(read) + end, tuple(_capitalized(text) + end for text in written))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
