"""Built-in data: cards and documents in an artificial language, rendered as pages."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from gearshift.models.common import array_file, cache
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
_ENDING = "~"
"""Stands for the ending of an adjective in a translation."""


class Bitext(NamedTuple):
    """Words, a text or Markdown, and their translation."""

    read: str
    written: str

    def target(self, kind: int) -> str:
        """The translation under the heading of number `kind`."""
        return self.written.replace(_ENDING, SUFFIXES[kind])


def _distinct(
    rng: Generator,
    count: int,
    letters: Sequence[str],
    fewest: int,
) -> list[str]:
    """Words of `fewest` syllables or one more."""
    words: dict[str, None] = {}
    *syllable, last = letters
    while len(words) < count:
        word = ""
        for _ in range(rng.integers(fewest, fewest + 2)):
            for letter in syllable:
                word += _pick(rng, letter)
        words[word + _pick(rng, last)] = None
    return list(words)


def _pick(rng: Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def phrase(noun: Bitext, adjective: Bitext) -> Bitext:
    """Adjective and noun; the translation has noun first and an agreeing ending."""
    return Bitext(
        f"{adjective.read} {noun.read}",
        f"{noun.written} {adjective.written}{_ENDING}",
    )


def _joined(separator: str, parts: Sequence[Bitext]) -> Bitext:
    return Bitext(*map(separator.join, zip(*parts, strict=True)))


def _marked(mark: str, text: Bitext) -> Bitext:
    return Bitext(mark + text.read, mark + text.written)


CARDS_VERSION = 2
"""Cache version; increase it when the rendering changes."""
COUNT = 4400
HEIGHT = 96
WIDTH = 64
ROWS = (1, 25, 49)
"""Top of the heading and of the two lines; each lies in one patch row of the global encoder."""
CARD_HEADINGS = (1, 16, 32)
"""Position of the heading (left, middle, right), which determines the ending of adjectives."""
_LEXICON = """
bak=amari dol=beso fim=cildo gus=duna hen=efri jor=golu
mev=jast nax=korm pir=lind rot=merk sul=nols tez=pund
"""
_WORDS = [Bitext(*pair.split("=")) for pair in _LEXICON.split()]
NOUNS = _WORDS[:6]
ADJECTIVES = _WORDS[6:]
_LETTERS = 14
_CELL_HEIGHT = 24
_CELL_WIDTH = 32


def read_cards() -> Collection:
    """COUNT distinct cards, two per document; rendered once, then read from the cache."""
    rng = np.random.default_rng(SEED)
    pair = (len(ADJECTIVES), len(NOUNS))
    shape = (len(SUFFIXES), len(NOUNS), *pair, *pair)
    # Without replacement: no card is in two splits.
    numbers = rng.choice(math.prod(shape), size=COUNT, replace=False)
    words = np.stack(np.unravel_index(numbers, shape), axis=1)
    made_from = {
        "version": CARDS_VERSION,
        "seed": SEED,
        "count": COUNT,
        "words": [word.read for word in _WORDS],
    }
    arrays = cache.arrays("doc-translation-cards", made_from, partial(_draw, words, rng))
    cards = []
    for i, pixels in enumerate(arrays["cards"]):
        source, text = card_texts(*words[i].tolist())
        card = Page(
            document=f"cards {i // 2:04}",
            name=f"card {i:04}",
            image=partial(Image.fromarray, pixels),
            target=partial(str, text),
            source=partial(str, source),
        )
        cards.append(card)
    return Collection("embedded:cards", cards)


def card_texts(kind: int, heading: int, *pairs: int) -> tuple[str, str]:
    """The text on a card, and its translation.

    By kind of heading, heading, and two pairs of adjective and noun.
    """
    lines = [_marked("# ", NOUNS[heading]), Bitext("", "")]
    for adjective, noun in zip(pairs[::2], pairs[1::2], strict=True):
        lines.append(phrase(NOUNS[noun], ADJECTIVES[adjective]))
    text = _joined("\n", lines)
    return text.read, text.target(kind)


def _draw(words: ndarray, rng: Generator) -> array_file.Arrays:
    """Render all cards, uint8 [card, height, width].

    A frame prevents the cropping of margins.
    """
    nouns = [_word(noun.read) for noun in NOUNS]
    adjectives = [_word(adjective.read) for adjective in ADJECTIVES]
    paler = rng.integers(0, 30, len(words)).tolist()  # some cards are
    cards = np.full((len(words), HEIGHT, WIDTH), 255, dtype=np.uint8)
    for number, (kind, heading, *pairs) in enumerate(words.tolist()):
        card = cards[number]
        title, *lines = (card[top : top + _CELL_HEIGHT] for top in ROWS)
        left = CARD_HEADINGS[kind]
        title[:, left : left + _CELL_WIDTH] = nouns[heading]
        for line, adjective, noun in zip(lines, pairs[::2], pairs[1::2], strict=True):
            line[:, 1 : 1 + _CELL_WIDTH] = adjectives[adjective]
            line[:, -_CELL_WIDTH:] = nouns[noun]
        speckle = rng.integers(0, 12, card.shape)
        ink = (card < 128) * paler[number]
        card[:] = np.clip(card + ink - speckle, 0, 255)
    cards[:, (0, -1)] = cards[:, :, (0, -1)] = 0
    return {"cards": cards}


def _word(text: str) -> ndarray:
    """Rendered word, uint8 [cell height, cell width]."""
    cell = Image.new("L", (_CELL_WIDTH, _CELL_HEIGHT), 255)
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
    """A page as blocks, and as Markdown in both languages."""

    document: int
    blocks: list[PageBlock]
    source: str
    target: str


@dataclass
class Author:
    """Generates documents; equal generators give equal documents."""

    rng: Generator

    def __post_init__(self) -> None:
        total = sum(COUNTS.values())
        read = _distinct(self.rng, total, _SOURCE, fewest=1)
        written = _distinct(self.rng, total, _TARGET, fewest=2)
        words = map(Bitext, read, written)
        self.words = {kind: list(islice(words, count)) for kind, count in COUNTS.items()}
        self.used: set[str] = set()
        self.shared = [self._new() for _ in range(SHARED)]

    def document(self, number: int) -> list[Text]:
        """Two to four pages with one kind of heading."""
        kind = int(self.rng.integers(len(HEADINGS)))
        pages = self.rng.integers(2, 5)
        return [self._page(number, kind, is_first=page == 0) for page in range(pages)]

    def _page(
        self,
        number: int,
        kind: int,
        is_first: bool,
    ) -> Text:
        blocks = []
        texts = []
        style = HEADINGS[kind]
        if is_first:
            title = self._phrase()
            blocks.append(PageBlock("title", title.read.title()))
            texts.append(_marked("# ", title))
        for section in range(1, self.rng.integers(2, 4) + 1):
            name = self._phrase()
            heading = f"{section} {name.read}" if style == "numbered" else name.read
            blocks.append(PageBlock(style, heading))
            texts.append(_marked("## ", name))
            sentences = [self._sentence() for _ in range(self.rng.integers(3, 8))]
            paragraph = _joined(" ", sentences)
            blocks.append(PageBlock("paragraph", paragraph.read))
            texts.append(paragraph)
            self._extra(blocks, texts)
        markdown = _joined("\n\n", texts)
        return Text(number, blocks, markdown.read, markdown.target(kind))

    def _extra(
        self,
        blocks: list[PageBlock],
        texts: list[Bitext],
    ) -> None:
        """Add a list, a table, a formula, or nothing."""
        choice = self.rng.integers(5)
        if choice == 0:
            items = [self._phrase() for _ in range(3)]
            blocks += [PageBlock("bullet", item.read) for item in items]
            texts.append(_joined("\n", [_marked("* ", item) for item in items]))
        if choice == 1:
            rows = []
            for _ in range(self.rng.integers(2, 4)):
                rows.append(_joined(" & ", [self._phrase(), self._phrase()]))
            body = _joined(r" \\ ", rows)
            table = body.read.replace(r" \\ ", "\n").replace(" & ", "|")
            blocks.append(PageBlock("table", table))
            texts.append(Bitext(*(rf"\begin{{tabular}}{{ll}} {x} \end{{tabular}}" for x in body)))
        if choice == 2:
            a, b = self.rng.integers(2, 50, 2).tolist()
            blocks.append(PageBlock("formula", f"{a} x + {b} = {a * b}"))
            formula = rf"\[{a}x+{b}={a * b}\]"
            texts.append(Bitext(formula, formula))

    def _sentence(self) -> Bitext:
        if self.rng.random() < OWN:
            return self._new()
        return _pick(self.rng, self.shared)

    def _new(self) -> Bitext:
        """New sentence: phrase, verb, phrase and sometimes a third phrase."""
        while True:
            verb = self._word("verbs")  # drawn first
            parts = [self._phrase(), verb, self._phrase()]
            if self.rng.random() < 0.3:
                parts += [self._word("joints"), self._phrase()]
            text = _joined(" ", parts)
            if text.read not in self.used:
                self.used.add(text.read)
                return Bitext(f"{text.read.capitalize()}.", f"{text.written.capitalize()}.")

    def _word(self, kind: str) -> Bitext:
        return _pick(self.rng, self.words[kind])

    def _phrase(self) -> Bitext:
        return phrase(self._word("nouns"), self._word("adjectives"))


def read_pages() -> Collection:
    """DOCUMENTS documents of two to four pages; rendered once, then read from the cache."""
    author = Author(np.random.default_rng(SEED))
    texts = list(chain.from_iterable(map(author.document, range(DOCUMENTS))))
    made_from = {"version": PAGES_VERSION, "seed": SEED, "documents": DOCUMENTS}
    arrays = cache.arrays("doc-translation-pages", made_from, partial(_scans, texts))
    scans = np.split(arrays["png"], arrays["ends"][:-1])
    pages = []
    for i, text in enumerate(texts):
        page = Page(
            document=f"document {text.document:03}",
            name=f"page {i:03}",
            image=partial(_decoded, scans[i]),
            target=partial(str, text.target),
            source=partial(str, text.source),
        )
        pages.append(page)
    return Collection("embedded:pages", pages)


def _decoded(png: ndarray) -> Image.Image:
    return open_picture(io.BytesIO(png.tobytes()))


def _scans(texts: Sequence[Text]) -> array_file.Arrays:
    """All pages as concatenated PNGs with their ends, a tenth of the raw size."""
    rng = np.random.default_rng(SEED)
    pngs = io.BytesIO()
    ends = []
    for text in texts:
        # Pillow writes a PNG from where the file is.
        scan(text, rng).save(pngs, "png", compress_level=3)
        ends.append(pngs.tell())
    return {"png": np.frombuffer(pngs.getvalue(), dtype=np.uint8), "ends": np.array(ends)}


def scan(text: Text, rng: Generator) -> Image.Image:
    """Render a page with random margins and columns, slightly rotated, blurred and speckled."""
    columns = int(rng.integers(1, 3))
    page = draw(text.blocks, int(rng.integers(32, 72)), columns)
    page = page.rotate(rng.uniform(-1, 1), resample=Image.Resampling.BILINEAR, fillcolor=255)
    page = page.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    dots = np.array(page).ravel()
    # Sparse and grey, so that cropping does not take speckle for ink.
    at = rng.integers(0, dots.size, dots.size // 500)
    dots[at] = np.minimum(dots[at], rng.integers(205, 250, len(at)))
    return Image.fromarray(dots.reshape(page.height, page.width))


READERS = {"embedded:pages": read_pages, "embedded:cards": read_cards}
