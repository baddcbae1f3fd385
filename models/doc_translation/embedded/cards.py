"""embedded:cards: small cards with five large words, for the tiny model."""

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
"""FixedDraws: the seed of a run changes the split and the order only."""

VERSION = 2
"""Cache version; increase it when the rendering changes."""

COUNT = 4400
HEIGHT, WIDTH = 96, 64
ROWS = (1, 25, 49)
"""Top of the heading and of the two lines; each lies in one patch row of the global encoder."""

HEADINGS = (1, 16, 32)
"""Position of the heading (left, middle, right), which determines the ending of adjectives."""

_NOUNS = ("bak", "dol", "fim", "gus", "hen", "jor")
_WRITTEN_NOUNS = ("amari", "beso", "cildo", "duna", "efri", "golu")
_ADJECTIVES = ("mev", "nax", "pir", "rot", "sul", "tez")
_WRITTEN_ADJECTIVES = ("jast", "korm", "lind", "merk", "nols", "pund")
NOUNS = tuple(map(Word, _NOUNS, _WRITTEN_NOUNS))
ADJECTIVES = tuple(map(Word, _ADJECTIVES, _WRITTEN_ADJECTIVES))
_LETTERS, _CELL = 14, (24, 32)


@dataclass(frozen=True)
class Card:
    """Kind of heading, heading, and two pairs of adjective and noun, rendered as `pixels`."""

    pixels: np.ndarray
    words: tuple[int, ...]
    document: str
    name: str

    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    def target(self) -> str:
        kind, heading, *pairs = self.words
        lines = [
            phrase(NOUNS[noun], ADJECTIVES[adjective]).written[kind]
            for adjective, noun in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return f"# {NOUNS[heading].written}\n\n" + "\n".join(lines)


def read() -> Collection:
    """COUNT distinct cards, two per document; rendered once, then read from the cache."""
    rng = np.random.default_rng(SEED)
    shape = (len(SUFFIXES), len(NOUNS), *((len(ADJECTIVES), len(NOUNS)) * 2))
    # Without replacement: no card is in two splits.
    chosen = rng.choice(int(np.prod(shape)), size=COUNT, replace=False)
    words = np.stack(np.unravel_index(chosen, shape), axis=1)
    read_words = [word.read for word in (*NOUNS, *ADJECTIVES)]
    made_from = {"version": VERSION, "seed": SEED, "count": COUNT, "words": read_words}
    drawn = cache.arrays("doc-translation-cards", made_from, partial(_draw, words, rng))
    cards = [
        Card(pixels, tuple(map(int, row)), f"cards {i // 2:04}", f"card {i:04}")
        for i, (pixels, row) in enumerate(zip(drawn["cards"], words, strict=True))
    ]
    return Collection(NAME, cards, "13a", None, (), Counter())


def _draw(words: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Render all cards, uint8 [card, height, width].

    A frame prevents the cropping of margins.
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
    faint = rng.integers(0, 30, (len(words), 1, 1))  # some cards are paler
    for card, paler in zip(cards, faint, strict=True):  # noise takes 8 bytes a pixel
        speckle = rng.integers(0, 12, card.shape)
        card[:] = np.clip(card.astype(np.int16) + (card < 128) * paler - speckle, 0, 255)
    cards[:, (0, -1)] = cards[:, :, (0, -1)] = 0
    return {"cards": cards}


def _put(
    cards: np.ndarray, which: np.ndarray, word_images: np.ndarray, top: int, left: int
) -> None:
    height, width = _CELL
    cards[which, top : top + height, left : left + width] = word_images


def _word(text: str) -> np.ndarray:
    """Rendered word, uint8 [cell height, cell width]."""
    cell = Image.new("L", (_CELL[1], _CELL[0]), 255)
    ImageDraw.Draw(cell).text((1, 2), text, font=font(None, _LETTERS), fill=0)
    return np.asarray(cell)
