"""embedded:pages: artificial documents rendered as scanned pages."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from models.common import cache
from models.common.pictures import open_picture
from models.doc_translation.embedded.lexicon import Lexicon, Sentence, Word, joined, lexicon, phrase
from models.doc_translation.readers.drawing import Block, Kind, Sheet, draw
from models.doc_translation.readers.page import Collection

COUNTS = (90, 60, 40, 10)
"""Numbers of nouns, adjectives, verbs and joints."""

SHARED = 1500
"""Sentences shared by all documents."""

OWN = 0.1
"""Share of sentences that occur in one document only."""

HEADINGS: tuple[Kind, ...] = ("centered", "ruled", "numbered")
"""Styles of headings, in the order of lexicon.SUFFIXES, which they select."""


@dataclass(frozen=True)
class Text:
    """A page as blocks, and its translation."""

    document: int
    blocks: tuple[Block, ...]
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
        parts: list[tuple[Block, str]] = []
        if is_first:
            title = self._phrase()
            parts.append((Block("title", title.read.title()), f"# {title.written[kind]}"))
        for section in range(int(self.rng.integers(2, 4))):
            parts.append(self._heading(kind, section))
            parts.append(self._paragraph(kind))
            parts += self._extra(kind)
        blocks, texts = zip(*parts, strict=True)
        return Text(number, tuple(blocks), "\n\n".join(filter(None, texts)))

    def _heading(self, kind: int, section: int) -> tuple[Block, str]:
        name = self._phrase()
        read = f"{section + 1} {name.read}" if HEADINGS[kind] == "numbered" else name.read
        return Block(HEADINGS[kind], read), f"## {name.written[kind]}"

    def _paragraph(self, kind: int) -> tuple[Block, str]:
        sentences = [self._sentence() for _ in range(int(self.rng.integers(3, 8)))]
        read = " ".join(sentence.read for sentence in sentences)
        return Block("paragraph", read), " ".join(sentence.written[kind] for sentence in sentences)

    def _extra(self, kind: int) -> list[tuple[Block, str]]:
        """A list, a table, a formula, or nothing."""
        choice = int(self.rng.integers(5))
        if choice == 0:
            items = [self._phrase() for _ in range(3)]
            listed = "\n".join(f"* {item.written[kind]}" for item in items)
            blocks = [Block("bullet", item.read) for item in items]
            return [(blocks[0], listed), *((block, "") for block in blocks[1:])]
        if choice == 1:
            return [self._table(kind)]
        if choice == 2:
            a, b = (int(n) for n in self.rng.integers(2, 50, 2))
            return [(Block("formula", f"{a} x + {b} = {a * b}"), rf"\[{a}x+{b}={a * b}\]")]
        return []

    def _table(self, kind: int) -> tuple[Block, str]:
        rows = [[self._phrase() for _ in range(2)] for _ in range(int(self.rng.integers(2, 4)))]
        read = "\n".join("|".join(cell.read for cell in row) for row in rows)
        written = r" \\ ".join(" & ".join(cell.written[kind] for cell in row) for row in rows)
        return Block("table", read), rf"\begin{{tabular}}{{ll}} {written} \end{{tabular}}"

    def _sentence(self) -> Sentence:
        if self.rng.random() < OWN:
            return self._new()
        return self.shared[int(self.rng.integers(len(self.shared)))]

    def _new(self) -> Sentence:
        """New sentence: phrase, verb, phrase and sometimes a third phrase."""
        while True:
            verb = self.words.verbs[int(self.rng.integers(len(self.words.verbs)))]
            parts: list[Sentence | Word] = [self._phrase(), verb, self._phrase()]
            if self.rng.random() < 0.3:
                joint = self.words.joints[int(self.rng.integers(len(self.words.joints)))]
                parts += [joint, self._phrase()]
            sentence = joined(parts, ".")
            if sentence.read not in self.used:
                self.used.add(sentence.read)
                return sentence

    def _phrase(self) -> Sentence:
        noun = self.words.nouns[int(self.rng.integers(len(self.words.nouns)))]
        adjective = self.words.adjectives[int(self.rng.integers(len(self.words.adjectives)))]
        return phrase(noun, adjective)


NAME = "embedded:pages"
SEED = 2024
"""FixedDraws: the seed of a run changes the split and the order only."""

VERSION = 1
"""Cache version; increase it when the rendering changes."""

DOCUMENTS = 300


@dataclass(frozen=True)
class Scan:
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


def read() -> Collection:
    """DOCUMENTS documents of two to four pages; rendered once, then read from the cache."""
    author = Author(np.random.default_rng(SEED))
    texts = [page for number in range(DOCUMENTS) for page in author.document(number)]
    made_from = {"version": VERSION, "seed": SEED, "documents": DOCUMENTS}
    kept = cache.arrays("doc-translation-pages", made_from, lambda: _scans(texts))
    ends = kept["ends"]
    starts = np.concatenate(([0], ends[:-1]))
    scans = [
        Scan(kept["png"][start:end], text, f"page {i:03}")
        for i, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True))
    ]
    return Collection(NAME, scans, "13a", None, (), Counter())


def _scans(texts: list[Text]) -> dict[str, np.ndarray]:
    """All pages as concatenated PNGs with their ends, a tenth of the raw size."""
    rng = np.random.default_rng(SEED)
    found = [np.frombuffer(_png(scan(text, rng)), dtype=np.uint8) for text in texts]
    return {"png": np.concatenate(found), "ends": np.cumsum([len(png) for png in found])}


def scan(text: Text, rng: np.random.Generator) -> Image.Image:
    """Render a page with random margins and columns, slightly rotated, blurred and speckled."""
    columns = int(rng.integers(1, 3))
    sheet = Sheet(margin=int(rng.integers(32, 72)), columns=columns)
    page = draw(text.blocks, sheet)
    assert page is not None, "an artificial page fits on its sheet"
    rotated = page.rotate(
        float(rng.uniform(-1, 1)), resample=Image.Resampling.BILINEAR, fillcolor=255
    )
    dots = np.asarray(rotated.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))).copy()
    # Sparse and grey, so that cropping does not take speckle for ink.
    at = rng.integers(0, dots.size, dots.size // 500)
    dots.ravel()[at] = np.minimum(dots.ravel()[at], rng.integers(205, 250, len(at)))
    return Image.fromarray(dots)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=3)
    return buffer.getvalue()
