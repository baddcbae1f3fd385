"""Pages with their translations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from gearshift.models.base import Groups


@dataclass(frozen=True)
class Page:
    """One page."""

    document: str
    """A document belongs to one split."""
    name: str
    image: Callable[[], Image.Image]
    """Reads it, grey or in color. Raises DataError. Can be pickled for other processes."""
    target: Callable[[], str]
    """Reads the translation as Markdown, as `image`."""
    source: Callable[[], str] | None = None
    """Reads the text on the page, as `image`; None: unknown."""


@dataclass(frozen=True)
class Collection:
    """All pages, and the skipped ones."""

    source: str
    pages: Sequence[Page]
    language: str = ""
    """Of the translations, such as `zh`; empty: an artificial one."""
    splits: Groups | None = None
    """Documents of each split, if the data defines splits."""
    skipped: Sequence[tuple[str, str]] = ()
    """Skipped pages with reasons."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Further counts for the facts."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What was assumed of files, and one of them; it may grow while pages are read."""


def without_number(name: str) -> str:
    """The document of a page: its name without the number at the end."""
    return re.sub(r"(?<=.)[_-]\d+$", "", name)
