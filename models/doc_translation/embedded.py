"""Built-in data: cards and documents in an artificial language, rendered as pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.common import cache
from models.common.pictures import open_picture
from models.doc_translation.readers.page import Collection, Kind, PageBlock, Sheet, draw, font

SUFFIXES = ("a", "o", "e")
"""Endings of adjectives in the target language, by kind of heading."""
SEED = 2024
"""Fixed: the seed of a run changes the split and the order only."""
_SOURCE = ("bcdfghjklmnprstvwz", "aeiou", "bdfgklmnprstvxz")
_TARGET = ("ptkmnlrsh", "aeiou", "nlrsmk")
_T = TypeVar("_T")


class TranslatedWord(NamedTuple):
    """A word and its translation; that of an adjective lacks its ending."""

    read: str
    written: str


class SourceSentence(NamedTuple):
    """Source text, and its translation under each kind of heading."""

    read: str
    written: tuple[str, ...]


class Lexicon(NamedTuple):
    """All words by kind."""

    nouns: tuple[TranslatedWord, ...]
    adjectives: tuple[TranslatedWord, ...]
    verbs: tuple[TranslatedWord, ...]
    joints: tuple[TranslatedWord, ...]


def lexicon(rng: np.random.Generator, counts: tuple[int, int, int, int]) -> Lexicon:
    """Generate distinct nouns, adjectives, verbs and joints in these `counts`."""
    total = sum(counts)
    read = _distinct(rng, total, _SOURCE, (1, 2))
    written = _distinct(rng, total, _TARGET, (2, 3))
    words = list(map(TranslatedWord, read, written))
    return Lexicon(*(tuple(words[a:b]) for a, b in pairwise(np.cumsum((0, *counts)))))


def _distinct(
    rng: np.random.Generator, count: int, letters: Sequence[str], syllables: tuple[int, int]
) -> list[str]:
    words: dict[str, None] = {}
    first, vowel, last = letters
    while len(words) < count:
        parts = int(rng.integers(syllables[0], syllables[1] + 1))
        word = "".join(_pick(rng, first) + _pick(rng, vowel) for _ in range(parts))
        words[word + _pick(rng, last)] = None
    return list(words)


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def phrase(noun: TranslatedWord, adjective: TranslatedWord) -> SourceSentence:
    """Adjective and noun; the translation has noun first and an agreeing ending."""
    written = tuple(f"{noun.written} {adjective.written}{suffix}" for suffix in SUFFIXES)
    return SourceSentence(f"{adjective.read} {noun.read}", written)


def joined(parts: Sequence[SourceSentence | TranslatedWord], end: str) -> SourceSentence:
    """Join `parts` into a sentence that starts with a capital letter in both languages."""
    texts = [" ".join(part.read for part in parts)]
    for kind in range(len(SUFFIXES)):
        written = (p.written if isinstance(p, TranslatedWord) else p.written[kind] for p in parts)
        texts.append(" ".join(written))
    read, *translations = (text[:1].upper() + text[1:] + end for text in texts)
    return SourceSentence(read, tuple(translations))


CARDS_VERSION = 2
"""Cache version; increase it when the rendering changes."""
COUNT = 4400
HEIGHT, WIDTH = 96, 64
ROWS = (1, 25, 49)
"""Top of the heading and of the two lines; each lies in one patch row of the global encoder."""
CARD_HEADINGS = (1, 16, 32)
"""Position of the heading (left, middle, right), which determines the ending of adjectives."""
_TRANSLATIONS = {
    "bak": "amari", "dol": "beso", "fim": "cildo", "gus": "duna", "hen": "efri", "jor": "golu",
    "mev": "jast", "nax": "korm", "pir": "lind", "rot": "merk", "sul": "nols", "tez": "pund",
}  # fmt: skip
_WORDS = tuple(TranslatedWord(*pair) for pair in _TRANSLATIONS.items())
NOUNS, ADJECTIVES = _WORDS[:6], _WORDS[6:]
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
        Card(pixels, tuple(map(int, row)), f"cards {i // 2:04}", f"card {i:04}")
        for i, (pixels, row) in enumerate(zip(drawn["cards"], words, strict=True))
    ]
    return Collection("embedded:cards", cards, "13a")


def _draw(words: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Render all cards, uint8 [card, height, width].

    A frame prevents the cropping of margins.
    """
    nouns, adjectives = (np.stack([_word(w.read) for w in kind]) for kind in (NOUNS, ADJECTIVES))
    kind, heading, *pairs = words.T
    cards = np.full((len(words), HEIGHT, WIDTH), 255, dtype=np.uint8)

    def put(which: np.ndarray, word_images: np.ndarray, top: int, left: int) -> None:
        cards[which, top : top + _CELL[0], left : left + _CELL[1]] = word_images

    for number, left in enumerate(CARD_HEADINGS):
        of_kind = np.flatnonzero(kind == number)
        put(of_kind, nouns[heading[of_kind]], ROWS[0], left)
    every = np.arange(len(words))
    for top, adjective, noun in zip(ROWS[1:], pairs[::2], pairs[1::2], strict=True):
        put(every, adjectives[adjective], top, 1)
        put(every, nouns[noun], top, WIDTH - _CELL[1])
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
COUNTS = (90, 60, 40, 10)
"""Numbers of nouns, adjectives, verbs and joints."""
SHARED = 1500
"""Sentences shared by all documents."""
OWN = 0.1
"""Share of sentences that occur in one document only."""
HEADINGS: tuple[Kind, ...] = ("centered", "ruled", "numbered")
"""Styles of headings, in the order of SUFFIXES, which they select."""
_Part = tuple[PageBlock, str]
"""A block and its translation."""


@dataclass(frozen=True)
class Text:
    """A page as blocks, and its translation."""

    document: int
    blocks: tuple[PageBlock, ...]
    target: str


class Author:
    """Generates documents; equal generators give equal documents."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.words: Lexicon = lexicon(rng, COUNTS)
        self.used: set[str] = set()
        self.shared = [self._new() for _ in range(SHARED)]

    def document(self, number: int) -> list[Text]:
        """Two to four pages with one kind of heading."""
        kind = int(self.rng.integers(len(HEADINGS)))
        pages = int(self.rng.integers(2, 5))
        return [self._page(number, kind, is_first=page == 0) for page in range(pages)]

    def _page(self, number: int, kind: int, is_first: bool) -> Text:
        parts: list[_Part] = []
        if is_first:
            title = self._phrase()
            parts.append((PageBlock("title", title.read.title()), f"# {title.written[kind]}"))
        for section in range(1, int(self.rng.integers(2, 4)) + 1):
            name = self._phrase()
            read = f"{section} {name.read}" if HEADINGS[kind] == "numbered" else name.read
            parts.append((PageBlock(HEADINGS[kind], read), f"## {name.written[kind]}"))
            sentences = [self._sentence() for _ in range(int(self.rng.integers(3, 8)))]
            block = PageBlock("paragraph", " ".join(sentence.read for sentence in sentences))
            parts.append((block, " ".join(sentence.written[kind] for sentence in sentences)))
            parts += self._extra(kind)
        blocks, texts = zip(*parts, strict=True)
        return Text(number, tuple(blocks), "\n\n".join(filter(None, texts)))

    def _extra(self, kind: int) -> list[_Part]:
        """A list, a table, a formula, or nothing."""
        choice = int(self.rng.integers(5))
        if choice == 0:
            items = [self._phrase() for _ in range(3)]
            listed = "\n".join(f"* {item.written[kind]}" for item in items)
            first, *others = (PageBlock("bullet", item.read) for item in items)
            return [(first, listed), *((block, "") for block in others)]
        if choice == 1:
            rows = [[self._phrase() for _ in range(2)] for _ in range(int(self.rng.integers(2, 4)))]
            read = "\n".join("|".join(cell.read for cell in row) for row in rows)
            cells = (" & ".join(cell.written[kind] for cell in row) for row in rows)
            written = r" \\ ".join(cells)
            written = rf"\begin{{tabular}}{{ll}} {written} \end{{tabular}}"
            return [(PageBlock("table", read), written)]
        if choice == 2:
            a, b = (int(n) for n in self.rng.integers(2, 50, 2))
            return [(PageBlock("formula", f"{a} x + {b} = {a * b}"), rf"\[{a}x+{b}={a * b}\]")]
        return []

    def _sentence(self) -> SourceSentence:
        if self.rng.random() < OWN:
            return self._new()
        return _pick(self.rng, self.shared)

    def _new(self) -> SourceSentence:
        """New sentence: phrase, verb, phrase and sometimes a third phrase."""
        while True:
            verb = _pick(self.rng, self.words.verbs)
            parts: list[SourceSentence | TranslatedWord] = [self._phrase(), verb, self._phrase()]
            if self.rng.random() < 0.3:
                parts += [_pick(self.rng, self.words.joints), self._phrase()]
            sentence = joined(parts, ".")
            if sentence.read not in self.used:
                self.used.add(sentence.read)
                return sentence

    def _phrase(self) -> SourceSentence:
        noun = _pick(self.rng, self.words.nouns)
        return phrase(noun, _pick(self.rng, self.words.adjectives))


@dataclass(frozen=True)
class ScannedPage:
    """A scanned page as PNG."""

    png: np.ndarray
    text: Text
    name: str

    @property
    def document(self) -> str:
        return f"document {self.text.document:03}"

    def image(self) -> Image.Image:
        return open_picture(io.BytesIO(self.png.tobytes()))

    def target(self) -> str:
        return self.text.target


def read_pages() -> Collection:
    """DOCUMENTS documents of two to four pages; rendered once, then read from the cache."""
    author = Author(np.random.default_rng(SEED))
    texts = [page for number in range(DOCUMENTS) for page in author.document(number)]
    made_from = {"version": PAGES_VERSION, "seed": SEED, "documents": DOCUMENTS}
    arrays = cache.arrays("doc-translation-pages", made_from, lambda: _scans(texts))
    edges = pairwise((0, *arrays["ends"].tolist()))
    scans = [
        ScannedPage(arrays["png"][start:end], text, f"page {i:03}")
        for i, ((start, end), text) in enumerate(zip(edges, texts, strict=True))
    ]
    return Collection("embedded:pages", scans, "13a")


def _scans(texts: list[Text]) -> dict[str, np.ndarray]:
    """All pages as concatenated PNGs with their ends, a tenth of the raw size."""
    rng, pngs = np.random.default_rng(SEED), list[np.ndarray]()
    for text in texts:
        buffer = io.BytesIO()
        scan(text, rng).save(buffer, "png", compress_level=3)
        pngs.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    return {"png": np.concatenate(pngs), "ends": np.cumsum([len(png) for png in pngs])}


def scan(text: Text, rng: np.random.Generator) -> Image.Image:
    """Render a page with random margins and columns, slightly rotated, blurred and speckled."""
    columns = int(rng.integers(1, 3))
    page = draw(text.blocks, Sheet(margin=int(rng.integers(32, 72)), columns=columns))
    assert page is not None, "an artificial page fits on its sheet"
    angle = float(rng.uniform(-1, 1))
    rotated = page.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=255)
    dots = np.asarray(rotated.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))).copy()
    # Sparse and grey, so that cropping does not take speckle for ink.
    at = rng.integers(0, dots.size, dots.size // 500)
    dots.ravel()[at] = np.minimum(dots.ravel()[at], rng.integers(205, 250, len(at)))
    return Image.fromarray(dots)
