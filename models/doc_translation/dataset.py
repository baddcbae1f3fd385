"""Samples and batches of pages, also in a noise control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.base import Draws
from models.common.data_files import OnBad, existing_path, unknown_embedded, unknown_format
from models.doc_translation import formats, images
from models.doc_translation.config import Size
from models.doc_translation.model import IGNORE
from models.doc_translation.readers import dota
from models.doc_translation.readers.page import Collection, Page
from models.doc_translation.vocabulary import Vocabulary

MAX_GAIN = 1.0
"""Maximum BLEU gain of images of other documents over blank pages."""
MULTIPLE = 8
"""Rows are padded to a multiple of this, the tile of tensor cores."""


@dataclass(frozen=True)
class PageSample:
    """One page: views uint8 [channel, height, width], tokens int64 [time]."""

    views: images.Views
    inputs: np.ndarray
    labels: np.ndarray
    reference: str
    document: str
    name: str


@dataclass(frozen=True)
class Pages:
    """Samples of one split; images are read or rendered on access."""

    pages: Sequence[Page]
    vocabulary: Vocabulary
    size: Size
    length: int
    shown: np.ndarray | None = None
    """In a noise control, the page whose image replaces the own image; None: own images."""

    def __len__(self) -> int:
        return len(self.pages)

    def sample(self, index: int, draws: Draws | None) -> PageSample:
        page = self.pages[index]
        image = self.pages[index if self.shown is None else int(self.shown[index])].image()
        text = page.target()
        tokens = self._tokens(text)[: self.length]
        inputs = np.concatenate(([self.vocabulary.start], tokens[:-1]))
        views = images.views(image, self.size)
        return PageSample(views, inputs, tokens, text, page.document, page.name)

    def count_tokens(self, index: int) -> int:
        """Tokens of a whole translation with the end token, without truncation."""
        return len(self._tokens(self.pages[index].target()))

    def _tokens(self, text: str) -> np.ndarray:
        return np.append(self.vocabulary.encode(text), self.vocabulary.end)


def collate(samples: Sequence[PageSample], pad: int) -> dict[str, Any]:
    """Collate samples, padded at the end to the longest translation in multiples of 8.

    `page_global` and `page_local` as of images.batches; `decoder_ids`, `labels` int64 [batch,
    time]; `units`, the number of labels; `references`, the whole translations; `meta`, document and
    page names.
    """
    longest = max(len(sample.inputs) for sample in samples)
    shape = (len(samples), -(-longest // MULTIPLE) * MULTIPLE)
    inputs = np.full(shape, pad, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    for i, sample in enumerate(samples):
        inputs[i, : len(sample.inputs)] = sample.inputs
        labels[i, : len(sample.labels)] = sample.labels
    whole, local = images.batches([sample.views for sample in samples])
    return {
        "page_global": whole,
        "page_local": local,
        "decoder_ids": torch.from_numpy(inputs),
        "labels": torch.from_numpy(labels),
        "units": int((labels != IGNORE).sum()),
        "references": [sample.reference for sample in samples],
        "meta": [(sample.document, sample.name) for sample in samples],
    }


def read(path: str, language: str, split: dota.Split, on_bad: OnBad) -> Collection:
    """Read the pages at `data.path`, with texts in `language`. Disk access; raises DataError."""
    if path in formats.EMBEDDED:
        from models.doc_translation import embedded

        return embedded.read_cards() if path == "embedded:cards" else embedded.read_pages()
    if path.startswith("embedded:"):
        raise unknown_embedded(path, formats.EMBEDDED)
    source = existing_path(path, "; ".join((*formats.FORMATS, *formats.EMBEDDED)))
    if formats.recognize(source) is None:
        raise unknown_format(source, formats.FORMATS)
    return dota.read(source, language, split, on_bad)
