"""Pages with their translations, and text blocks rendered as pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, Protocol

from PIL import Image, ImageDraw, ImageFont

from models.base import SplitName


class Page(Protocol):
    """One page; image and text are read or rendered on access."""

    @property
    def document(self) -> str:
        """Document of the page; a document belongs to one split."""

    @property
    def name(self) -> str:
        """Name of the page for messages."""

    def image(self) -> Image.Image:
        """Image of the page, grey or in color. Raises DataError."""

    def target(self) -> str:
        """Translation of the page as Markdown. Raises DataError."""


@dataclass(frozen=True)
class Collection:
    """All pages, and the skipped ones."""

    source: str
    pages: Sequence[Page]
    tokenize: str
    """Name of the sacrebleu tokenizer for the translations."""
    given: Mapping[SplitName, Sequence[str]] | None = None
    """Documents of each split, if the data defines splits."""
    skipped: Sequence[tuple[str, str]] = ()
    """Skipped pages with reasons."""
    counts: Mapping[str, int] = field(default_factory=dict)
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


Kind = Literal["title", "centered", "ruled", "numbered", "paragraph", "bullet", "formula", "table"]
SIZES = (22, 20, 18, 16, 14, 12, 11, 10, 9, 8)
"""Letter heights in pixels, tried in turn until the page fits."""

LEADING = 1.35
"""Line height as a multiple of the letter height."""

_SCALE = {"title": 1.6, "centered": 1.25, "ruled": 1.25, "numbered": 1.25}


@dataclass(frozen=True)
class PageBlock:
    """One block of a page. A table has one line per row and `|` between cells."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Sheet:
    """Page dimensions in pixels."""

    height: int = 896
    width: int = 672
    margin: int = 48
    columns: int = 1
    gap: int = 28

    @property
    def column_width(self) -> int:
        """Width of one column."""
        return (self.width - 2 * self.margin - (self.columns - 1) * self.gap) // self.columns


@dataclass(frozen=True)
class _Line:
    """Line of text in a column: text, letter height, left offset, height and optional rule."""

    text: str
    size: int
    left: float
    height: float
    is_ruled: bool = False


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of Pillow with letters `size` pixels high."""
    default = ImageFont.load_default(size)
    assert isinstance(default, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return default


def draw(blocks: Sequence[PageBlock], sheet: Sheet) -> Image.Image | None:
    """Render a grey page; None if the blocks do not fit even in the smallest letters."""
    for size in SIZES:
        placed = _placed(blocks, size, sheet)
        if placed is None:
            continue
        page = Image.new("L", (sheet.width, sheet.height), 255)
        pen = ImageDraw.Draw(page)
        for line, x, y in placed:
            pen.text((x + line.left, y), line.text, font=font(line.size), fill=0)
            if line.is_ruled:
                below = y + line.size * 1.2
                pen.line((x, below, x + sheet.column_width, below), fill=0, width=2)
        return page
    return None


def _placed(blocks: Sequence[PageBlock], size: int, sheet: Sheet) -> list[tuple[_Line, float, float]] | None:
    """Positions of all lines, column by column; None if they do not fit."""
    placed: list[tuple[_Line, float, float]] = []
    column, y = 0, float(sheet.margin)
    for block in blocks:
        for line in _lines(block, size, sheet):
            if y + line.height > sheet.height - sheet.margin:
                column, y = column + 1, float(sheet.margin)
            if column == sheet.columns:
                return None
            placed.append((line, sheet.margin + column * (sheet.column_width + sheet.gap), y))
            y += line.height
    return placed


def _lines(block: PageBlock, base: int, sheet: Sheet) -> list[_Line]:
    """Lines of a block; the last one includes the gap to the next block."""
    size = round(base * _SCALE.get(block.kind, 1.0))
    face, height, width = font(size), size * LEADING, sheet.column_width
    if block.kind == "table":
        lines = list(_rows(block.text, size, sheet))
    else:
        indent = base * 1.2 if block.kind == "bullet" else 0.0
        texts = _wrapped(block.text, face, width - indent)
        lines = [_Line(text, size, indent, height) for text in texts]
    if block.kind in ("title", "centered", "formula"):
        lines = [replace(line, left=(width - face.getlength(line.text)) / 2) for line in lines]
    last = lines[-1]
    is_ruled = last.is_ruled or block.kind == "ruled"
    lines[-1] = replace(last, height=last.height + base * 0.6, is_ruled=is_ruled)
    mark = [_Line("-", size, base * 0.3, 0.0)] if block.kind == "bullet" else []
    return mark + lines


def _rows(text: str, size: int, sheet: Sheet) -> Iterator[_Line]:
    for row in text.split("\n"):
        cells = row.split("|")
        for number, cell in enumerate(cells):
            is_last = number == len(cells) - 1
            left = sheet.column_width / len(cells) * number
            yield _Line(cell.strip(), size, left, size * LEADING if is_last else 0.0, is_last)


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """Wrap `text` to lines of at most `width`."""
    line, *others = text.split(" ")
    for word in others:
        if face.getlength(f"{line} {word}") > width:
            yield line
            line = word
        else:
            line += f" {word}"
    yield line
