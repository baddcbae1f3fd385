"""Built-in data: cards and documents in an artificial language, rendered as pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from gearshift.models.common import cache
from gearshift.models.common.pictures import open_picture
from gearshift.models.doc_translation.readers.page import Collection, Page
from gearshift.models.doc_translation.rendering import Kind, PageBlock, draw, font

SUFFIXES = ("a", "o", "e")
"""Endings of adjectives in the target language, by kind of heading."""
SEED = 2024
"""Fixed: the seed of a run changes the split and the order only."""
_SOURCE = ("bcdfghjklmnprstvwz", "aeiou", "bdfgklmnprstvxz")
_TARGET = ("ptkmnlrsh", "aeiou", "nlrsmk")
_T = TypeVar("_T")
Sentence = tuple[str, ...]
"""Source text, then its translation under each kind of heading."""


class TranslatedWord(NamedTuple):
    """A word and its translation; that of an adjective lacks its ending."""

    read: str
    written: str


def _distinct(
    rng: Generator, count: int, letters: Sequence[str], syllables: tuple[int, int]
) -> list[str]:
    words: dict[str, None] = {}
    first, vowel, last = letters
    while len(words) < count:
        parts = int(rng.integers(syllables[0], syllables[1] + 1))
        word = "".join(_pick(rng, first) + _pick(rng, vowel) for _ in range(parts))
        words[word + _pick(rng, last)] = None
    return list(words)


def _pick(rng: Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def phrase(noun: TranslatedWord, adjective: TranslatedWord) -> Sentence:
    """Adjective and noun; the translation has noun first and an agreeing ending."""
    written = (f"{noun.written} {adjective.written}{suffix}" for suffix in SUFFIXES)
    return (f"{adjective.read} {noun.read}", *written)


CARDS_VERSION = 2
"""Cache version; increase it when the rendering changes."""
COUNT = 4400
HEIGHT = 96
WIDTH = 64
ROWS = (1, 25, 49)
"""Top of the heading and of the two lines; each lies in one patch row of the global encoder."""
CARD_HEADINGS = (1, 16, 32)
"""Position of the heading (left, middle, right), which determines the ending of adjectives."""
_TRANSLATIONS = {
    "bak": "amari", "dol": "beso", "fim": "cildo", "gus": "duna", "hen": "efri", "jor": "golu",
    "mev": "jast", "nax": "korm", "pir": "lind", "rot": "merk", "sul": "nols", "tez": "pund",
}  # fmt: skip
_WORDS = tuple(TranslatedWord(*pair) for pair in _TRANSLATIONS.items())
NOUNS = _WORDS[:6]
ADJECTIVES = _WORDS[6:]
_LETTERS = 14
_CELL = (24, 32)


def read_cards() -> Collection:
    """COUNT distinct cards, two per document; rendered once, then read from the cache."""
    rng = np.random.default_rng(SEED)
    shape = (len(SUFFIXES), len(NOUNS), *((len(ADJECTIVES), len(NOUNS)) * 2))
    # Without replacement: no card is in two splits.
    chosen = rng.choice(int(np.prod(shape)), size=COUNT, replace=False)
    words = np.stack(np.unravel_index(chosen, shape), axis=1)
    read_words = [word.read for word in (*NOUNS, *ADJECTIVES)]
    made_from = {"version": CARDS_VERSION, "seed": SEED, "count": COUNT, "words": read_words}
    drawn = cache.arrays("doc-translation-cards", made_from, partial(_draw, words, rng))
    cards = [
        Page(
            f"cards {i // 2:04}", f"card {i:04}", partial(Image.fromarray, pixels), card_text(*row)
        )
        for i, (pixels, row) in enumerate(zip(drawn["cards"], words.tolist(), strict=True))
    ]
    return Collection("embedded:cards", cards)


def card_text(kind: int, heading: int, *pairs: int) -> str:
    """The translation of a card: kind of heading, heading, and two pairs of adjective and noun."""
    found = zip(pairs[::2], pairs[1::2], strict=True)
    lines = [phrase(NOUNS[noun], ADJECTIVES[adjective])[1 + kind] for adjective, noun in found]
    return f"# {NOUNS[heading].written}\n\n" + "\n".join(lines)


def _draw(words: np.ndarray, rng: Generator) -> cache.Arrays:
    """Render all cards, uint8 [card, height, width].

    A frame prevents the cropping of margins.
    """
    nouns, adjectives = (np.stack([_word(w.read) for w in kind]) for kind in (NOUNS, ADJECTIVES))
    kind, heading, *pairs = words.T
    cards = np.full((len(words), HEIGHT, WIDTH), 255, dtype=np.uint8)
    every = np.arange(len(words))
    cells = [(every, adjectives[pairs[n]], ROWS[1 + n // 2], 1) for n in (0, 2)]
    cells += [(every, nouns[pairs[n]], ROWS[1 + n // 2], WIDTH - _CELL[1]) for n in (1, 3)]
    for number, left in enumerate(CARD_HEADINGS):
        which = np.flatnonzero(kind == number)
        cells.append((which, nouns[heading[which]], ROWS[0], left))
    for which, pictures, top, left in cells:
        cards[which, top : top + _CELL[0], left : left + _CELL[1]] = pictures
    faint = rng.integers(0, 30, (len(words), 1, 1))  # some cards are paler
    for card, paler in zip(cards, faint, strict=True):  # noise takes 8 bytes a pixel
        speckle = rng.integers(0, 12, card.shape)
        card[:] = np.clip(card.astype(np.int16) + (card < 128) * paler - speckle, 0, 255)
    cards[:, (0, -1)] = cards[:, :, (0, -1)] = 0
    return {"cards": cards}


def _word(text: str) -> np.ndarray:
    """Rendered word, uint8 [cell height, cell width]."""
    cell = Image.new("L", (_CELL[1], _CELL[0]), 255)
    ImageDraw.Draw(cell).text((1, 2), text, font=font(_LETTERS), fill=0)
    return np.asarray(cell)


PAGES_VERSION = 1
"""Cache version; increase it when the rendering changes."""
DOCUMENTS = 300
COUNTS = {"nouns": 90, "adjectives": 60, "verbs": 40, "joints": 10}
SHARED = 1500
"""Sentences shared by all documents."""
OWN = 0.1
"""Share of sentences that occur in one document only."""
HEADINGS: tuple[Kind, ...] = ("centered", "ruled", "numbered")
"""Styles of headings, in the order of SUFFIXES, which they select."""


class Text(NamedTuple):
    """A page as blocks, and its translation."""

    document: int
    blocks: list[PageBlock]
    target: str


class Author:
    """Generates documents; equal generators give equal documents."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        total = sum(COUNTS.values())
        read = _distinct(rng, total, _SOURCE, (1, 2))
        written = _distinct(rng, total, _TARGET, (2, 3))
        words = list(map(TranslatedWord, read, written))
        edges = pairwise(np.cumsum((0, *COUNTS.values())).tolist())
        self.words = {kind: words[a:b] for kind, (a, b) in zip(COUNTS, edges, strict=True)}
        self.used: set[str] = set()
        self.shared = [self._new() for _ in range(SHARED)]

    def document(self, number: int) -> list[Text]:
        """Two to four pages with one kind of heading."""
        kind = int(self.rng.integers(len(HEADINGS)))
        pages = int(self.rng.integers(2, 5))
        return [self._page(number, kind, is_first=page == 0) for page in range(pages)]

    def _page(self, number: int, kind: int, is_first: bool) -> Text:
        blocks: list[PageBlock] = []
        texts: list[str] = []
        if is_first:
            title = self._phrase()
            blocks.append(PageBlock("title", title[0].title()))
            texts.append(f"# {title[1 + kind]}")
        for section in range(1, int(self.rng.integers(2, 4)) + 1):
            name = self._phrase()
            style = HEADINGS[kind]
            blocks.append(
                PageBlock(style, f"{section} {name[0]}" if style == "numbered" else name[0])
            )
            sentences = [self._sentence() for _ in range(int(self.rng.integers(3, 8)))]
            blocks.append(PageBlock("paragraph", " ".join(sentence[0] for sentence in sentences)))
            texts += [
                f"## {name[1 + kind]}",
                " ".join(sentence[1 + kind] for sentence in sentences),
            ]
            self._extra(1 + kind, blocks, texts)
        return Text(number, blocks, "\n\n".join(texts))

    def _extra(self, written: int, blocks: list[PageBlock], texts: list[str]) -> None:
        """Add a list, a table, a formula, or nothing."""
        choice = int(self.rng.integers(5))
        if choice == 0:
            items = [self._phrase() for _ in range(3)]
            blocks += [PageBlock("bullet", item[0]) for item in items]
            texts.append("\n".join(f"* {item[written]}" for item in items))
        if choice == 1:
            rows = [[self._phrase() for _ in range(2)] for _ in range(int(self.rng.integers(2, 4)))]
            blocks.append(
                PageBlock("table", "\n".join("|".join(cell[0] for cell in row) for row in rows))
            )
            body = r" \\ ".join(" & ".join(cell[written] for cell in row) for row in rows)
            texts.append(rf"\begin{{tabular}}{{ll}} {body} \end{{tabular}}")
        if choice == 2:
            a, b = (int(n) for n in self.rng.integers(2, 50, 2))
            blocks.append(PageBlock("formula", f"{a} x + {b} = {a * b}"))
            texts.append(rf"\[{a}x+{b}={a * b}\]")

    def _sentence(self) -> Sentence:
        return self._new() if self.rng.random() < OWN else _pick(self.rng, self.shared)

    def _new(self) -> Sentence:
        """New sentence: phrase, verb, phrase and sometimes a third phrase."""
        while True:
            verb = _pick(self.rng, self.words["verbs"])
            parts = [self._phrase(), self._in_all(verb), self._phrase()]
            if self.rng.random() < 0.3:
                parts += [self._in_all(_pick(self.rng, self.words["joints"])), self._phrase()]
            texts = (" ".join(words) for words in zip(*parts, strict=True))
            sentence = tuple(text[:1].upper() + text[1:] + "." for text in texts)
            if sentence[0] not in self.used:
                self.used.add(sentence[0])
                return sentence

    def _in_all(self, word: TranslatedWord) -> Sentence:
        return (word.read, *[word.written] * len(SUFFIXES))

    def _phrase(self) -> Sentence:
        noun = _pick(self.rng, self.words["nouns"])
        return phrase(noun, _pick(self.rng, self.words["adjectives"]))


def read_pages() -> Collection:
    """DOCUMENTS documents of two to four pages; rendered once, then read from the cache."""
    author = Author(np.random.default_rng(SEED))
    texts = [page for number in range(DOCUMENTS) for page in author.document(number)]
    made_from = {"version": PAGES_VERSION, "seed": SEED, "documents": DOCUMENTS}
    arrays = cache.arrays("doc-translation-pages", made_from, lambda: _scans(texts))
    scans = np.split(arrays["png"], arrays["ends"][:-1])
    pages = [
        Page(f"document {text.document:03}", f"page {i:03}", partial(_decoded, png), text.target)
        for i, (png, text) in enumerate(zip(scans, texts, strict=True))
    ]
    return Collection("embedded:pages", pages)


def _decoded(png: np.ndarray) -> Image.Image:
    return open_picture(io.BytesIO(png.tobytes()))


def _scans(texts: list[Text]) -> cache.Arrays:
    """All pages as concatenated PNGs with their ends, a tenth of the raw size."""
    rng = np.random.default_rng(SEED)
    pngs: list[np.ndarray] = []
    for text in texts:
        buffer = io.BytesIO()
        scan(text, rng).save(buffer, "png", compress_level=3)
        pngs.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    return {"png": np.concatenate(pngs), "ends": np.cumsum([len(png) for png in pngs])}


def scan(text: Text, rng: Generator) -> Image.Image:
    """Render a page with random margins and columns, slightly rotated, blurred and speckled."""
    columns = int(rng.integers(1, 3))
    page = draw(text.blocks, int(rng.integers(32, 72)), columns)
    angle = float(rng.uniform(-1, 1))
    rotated = page.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=255)
    dots = np.asarray(rotated.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))).copy()
    # Sparse and grey, so that cropping does not take speckle for ink.
    at = rng.integers(0, dots.size, dots.size // 500)
    dots.ravel()[at] = np.minimum(dots.ravel()[at], rng.integers(205, 250, len(at)))
    return Image.fromarray(dots)
