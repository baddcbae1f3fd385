"""What a page is: an image to look at, and the translation to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from models.base import SplitName

if TYPE_CHECKING:
    from PIL.Image import Image


class Page(Protocol):
    """One page; image and text are made or read only when they are asked for."""

    @property
    def document(self) -> str:
        """What it is part of; a document is never on two sides of a split."""

    @property
    def name(self) -> str:
        """Its own name, for a person to find it by."""

    def image(self) -> Image:
        """The page as it looks, grey or in colours. Raises DataError."""

    def target(self) -> str:
        """Its translation, Markdown. Raises DataError."""


@dataclass(frozen=True)
class Collection:
    """All pages there are, and what was left out on the way."""

    source: str
    pages: Sequence[Page]
    tokenize: str
    """How BLEU cuts the translations into words: a tokenizer's name in sacrebleu."""
    given: Mapping[SplitName, Sequence[str]] | None = None
    """The documents of each split, where the data says so."""
    left_out: Sequence[tuple[str, str]] = ()
    """Pages that were left out, and why."""
    counts: Mapping[str, int] = field(default_factory=Counter)
    """What else a person should know, such as duplicates."""


def bleu_tokenizer(language: str) -> str:
    """The sacrebleu tokenizer for `language`, such as `zh` or `de`."""
    return "zh" if language.lower().split("-")[0].split("_")[0] == "zh" else "13a"
