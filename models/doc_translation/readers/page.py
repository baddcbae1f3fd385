"""Page protocol: an image and its translation; and collections of pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from models.base import SplitName

if TYPE_CHECKING:
    from PIL.Image import Image


class Page(Protocol):
    """One page; image and text are read or rendered on access."""

    @property
    def document(self) -> str:
        """Document of the page; a document belongs to one split."""

    @property
    def name(self) -> str:
        """Name of the page for messages."""

    def image(self) -> Image:
        """Image of the page, grey or in color. Raises DataError."""

    def target(self) -> str:
        """Translation of the page as Markdown. Raises DataError."""


@dataclass(frozen=True)
class Collection:
    """All pages, and the skipped ones."""

    source: str
    pages: Sequence[Page]
    tokenize: str | None
    """Name of the sacrebleu tokenizer for the translations; None: they are not read."""
    given: Mapping[SplitName, Sequence[str]] | None = None
    """Documents of each split, if the data defines splits."""
    skipped: Sequence[tuple[str, str]] = ()
    """Skipped pages with reasons."""
    counts: Mapping[str, int] = field(default_factory=Counter)
    """Further counts for the facts, for example duplicates."""
    notes: Sequence[str] = ()
    """What was assumed of files; it may grow while pages are read."""


def bleu_tokenizer(language: str) -> str:
    """The sacrebleu tokenizer for `language`, such as `zh` or `de`."""
    return "zh" if language.lower().split("-")[0].split("_")[0] == "zh" else "13a"


def without_number(name: str) -> str:
    """The document of a page or paragraph: its name without the number at the end."""
    match = re.fullmatch(r"(.+)[_-]\d+", name)
    return match[1] if match else name
