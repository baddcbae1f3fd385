"""Pages of the artificial documents as a scanner would give them."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from models.common import cache
from models.doc_translation.drawing import Sheet, draw
from models.doc_translation.embedded.documents import Author, Text
from models.doc_translation.pages import Collection

NAME = "embedded:pages"
SEED = 2024
"""The set is one set: what a run's seed changes is its split and its order."""

VERSION = 1
"""Of what is drawn: another one makes the cache anew."""

DOCUMENTS = 300


@dataclass(frozen=True)
class Scan:
    """A page as a PNG."""

    png: np.ndarray
    text: Text
    name: str

    @property
    def document(self) -> str:
        """See Page."""
        return f"document {self.text.document:03}"

    def image(self) -> Image.Image:
        """See Page."""
        return Image.open(io.BytesIO(self.png.tobytes()))

    def target(self) -> str:
        """See Page."""
        return self.text.target


def read() -> Collection:
    """DOCUMENTS documents of two to four pages; drawn once, then read from the cache."""
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
    """All pages as PNGs, end to end, and where each one ends: raw they would be ten times that."""
    rng = np.random.default_rng(SEED)
    found = [np.frombuffer(_png(scan(text, rng)), dtype=np.uint8) for text in texts]
    return {"png": np.concatenate(found), "ends": np.cumsum([len(png) for png in found])}


def scan(text: Text, rng: np.random.Generator) -> Image.Image:
    """A page with margins and columns of its own, a little turned, blurred and speckled."""
    columns = int(rng.integers(1, 3))
    sheet = Sheet(margin=int(rng.integers(32, 72)), columns=columns)
    page = draw(text.blocks, sheet)
    assert page is not None, "an artificial page fits on its sheet"
    turned = page.rotate(
        float(rng.uniform(-1, 1)), resample=Image.Resampling.BILINEAR, fillcolor=255
    )
    dots = np.asarray(turned.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))).copy()
    # Few dots, and grey ones: speckle that cropping would take for ink moves no margin.
    at = rng.integers(0, dots.size, dots.size // 500)
    dots.ravel()[at] = np.minimum(dots.ravel()[at], rng.integers(205, 250, len(at)))
    return Image.fromarray(dots)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=3)
    return buffer.getvalue()
