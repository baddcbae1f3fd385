"""Small cards with five large words in a grid, which a tiny model learns to read in seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from models.common import cache
from models.doc_translation.embedded.lexicon import SUFFIXES, Word, phrase
from models.doc_translation.readers.drawing import font
from models.doc_translation.readers.page import Collection

NAME = "embedded:cards"
SEED = 2024
"""The set is one set: what a run's seed changes is its split and its order."""

VERSION = 2
"""Of what is drawn: another one makes the cache anew."""

COUNT = 4400
HEIGHT, WIDTH = 96, 64
ROWS = (1, 25, 49)
"""Where the heading and the two lines begin: each in a row of the global encoder's patches."""

HEADINGS = (1, 16, 32)
"""Where the heading stands tells which ending the adjectives have: left, middle, right."""

_NOUNS = ("bak", "dol", "fim", "gus", "hen", "jor")
_WRITTEN_NOUNS = ("amari", "beso", "cildo", "duna", "efri", "golu")
_ADJECTIVES = ("mev", "nax", "pir", "rot", "sul", "tez")
_WRITTEN_ADJECTIVES = ("jast", "korm", "lind", "merk", "nols", "pund")
NOUNS = tuple(map(Word, _NOUNS, _WRITTEN_NOUNS))
ADJECTIVES = tuple(map(Word, _ADJECTIVES, _WRITTEN_ADJECTIVES))
_LETTERS, _CELL = 14, (24, 32)


@dataclass(frozen=True)
class Card:
    """Heading, its kind, and two pairs of adjective and noun, as drawn into `dots`."""

    dots: np.ndarray
    words: tuple[int, ...]
    document: str
    name: str

    def image(self) -> Image.Image:
        """See Page."""
        return Image.fromarray(self.dots)

    def target(self) -> str:
        """See Page."""
        kind, heading, *pairs = self.words
        lines = [
            phrase(NOUNS[noun], ADJECTIVES[adjective]).written[kind]
            for adjective, noun in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return f"# {NOUNS[heading].written}\n\n" + "\n".join(lines)


def read() -> Collection:
    """COUNT cards, no two alike, two of each document; drawn once, then read from the cache."""
    rng = np.random.default_rng(SEED)
    shape = (len(SUFFIXES), len(NOUNS), *((len(ADJECTIVES), len(NOUNS)) * 2))
    # Without replacement: no card is on two sides of a split.
    chosen = rng.choice(int(np.prod(shape)), size=COUNT, replace=False)
    words = np.stack(np.unravel_index(chosen, shape), axis=1)
    read_words = [word.read for word in (*NOUNS, *ADJECTIVES)]
    made_from = {"version": VERSION, "seed": SEED, "count": COUNT, "words": read_words}
    drawn = cache.arrays("doc-translation-cards", made_from, partial(_draw, words, rng))["cards"]
    cards = [
        Card(dots, tuple(map(int, row)), f"cards {i // 2:04}", f"card {i:04}")
        for i, (dots, row) in enumerate(zip(drawn, words, strict=True))
    ]
    return Collection(NAME, cards, "13a", None, (), Counter())


def _draw(words: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """All cards at once, word by word of the grid: uint8 [card, height, width].

    A frame stands around, so that there are no margins that cropping could take away.
    """
    nouns, adjectives = (np.stack([_word(w.read) for w in kind]) for kind in (NOUNS, ADJECTIVES))
    kind, heading, *pairs = words.T
    cards = np.full((len(words), HEIGHT, WIDTH), 255, dtype=np.uint8)
    for number, left in enumerate(HEADINGS):
        of_kind = np.flatnonzero(kind == number)
        _put(cards, of_kind, nouns[heading[of_kind]], ROWS[0], left)
    every = np.arange(len(words))
    for top, adjective, noun in zip(ROWS[1:], pairs[::2], pairs[1::2], strict=True):
        _put(cards, every, adjectives[adjective], top, 1)
        _put(cards, every, nouns[noun], top, WIDTH - _CELL[1])
    faint = rng.integers(0, 30, (len(words), 1, 1))  # some are printed paler
    speckle = rng.integers(0, 12, cards.shape)
    cards = np.clip(cards.astype(np.int16) + (cards < 128) * faint - speckle, 0, 255)
    cards[:, (0, -1)] = cards[:, :, (0, -1)] = 0
    return {"cards": cards.astype(np.uint8)}


def _put(cards: np.ndarray, which: np.ndarray, drawn: np.ndarray, top: int, left: int) -> None:
    height, width = _CELL
    cards[which, top : top + height, left : left + width] = drawn


def _word(text: str) -> np.ndarray:
    """A word, drawn, uint8 [cell height, cell width]."""
    cell = Image.new("L", (_CELL[1], _CELL[0]), 255)
    ImageDraw.Draw(cell).text((1, 2), text, font=font(None, _LETTERS), fill=0)
    return np.asarray(cell)
