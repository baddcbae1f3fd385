"""Text laid out on a page and drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Kind = Literal["title", "centred", "ruled", "numbered", "paragraph", "bullet", "formula", "table"]
SIZES = (22, 20, 18, 16, 14, 12, 11, 10, 9, 8)
"""Heights of letters that are tried in turn, in dots, until all fits."""

LEADING = 1.35
"""Height of a line, in heights of its letters."""

_SCALE = {"title": 1.6, "centred": 1.25, "ruled": 1.25, "numbered": 1.25}
_WORDS = re.compile(
    r"[\u1100-\uD7FF\uF900-\uFAFF\uFF00-\uFFEF]\s*|[^\s\u1100-\uD7FF\uF900-\uFAFF]+\s*"
)


@dataclass(frozen=True)
class Block:
    """One thing on a page. Of a table `text` has a line a row and `|` between its cells."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Sheet:
    """The paper, in dots."""

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
    """A line of text within a column: what, how high, how far from the left, ruled below or not."""

    text: str
    size: int
    left: float
    height: float
    is_ruled: bool = False


@lru_cache(maxsize=64)
def font(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    """The font file at `path`, or Pillow's own, with letters `size` dots high. Reads from disk.

    Raises OSError where the file is no font.
    """
    if path is not None:
        return ImageFont.truetype(path, size)
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def missing(path: str | None, characters: Sequence[str]) -> list[str]:
    """Those of `characters` that the font draws as a box."""
    drawn = font(path, SIZES[0])
    box = bytes(drawn.getmask("\U0010ffff"))
    return [c for c in characters if not c.isspace() and bytes(drawn.getmask(c)) == box]


def draw(blocks: Sequence[Block], sheet: Sheet, path: str | None = None) -> Image.Image | None:
    """The page, grey; None where it is too much for one, even in the smallest letters."""
    for size in SIZES:
        lines = (line for block in blocks for line in _lines(block, size, sheet, path))
        placed = _placed(lines, sheet)
        if placed is None:
            continue
        page = Image.new("L", (sheet.width, sheet.height), 255)
        pen = ImageDraw.Draw(page)
        for line, x, y in placed:
            pen.text((x + line.left, y), line.text, font=font(path, line.size), fill=0)
            if line.is_ruled:
                below = y + line.size * 1.2
                pen.line((x, below, x + sheet.column_width, below), fill=0, width=2)
        return page
    return None


def _placed(lines: Iterable[_Line], sheet: Sheet) -> list[tuple[_Line, float, float]] | None:
    """Where each line begins, column by column; None as soon as they are too many."""
    placed: list[tuple[_Line, float, float]] = []
    column, y = 0, float(sheet.margin)
    for line in lines:
        if y + line.height > sheet.height - sheet.margin:
            column, y = column + 1, float(sheet.margin)
        if column == sheet.columns:
            return None
        placed.append((line, sheet.margin + column * (sheet.column_width + sheet.gap), y))
        y += line.height
    return placed


def _lines(block: Block, base: int, sheet: Sheet, path: str | None) -> Iterator[_Line]:
    """The lines of a block; the last one is higher, for the gap to the next block."""
    size = round(base * _SCALE.get(block.kind, 1.0))
    indent = base * 1.2 if block.kind == "bullet" else 0.0
    if block.kind == "table":
        found = _rows(block.text, size, sheet)
    else:
        wrapped = _wrapped(block.text, font(path, size), sheet.column_width - indent)
        found = (_Line(text, size, indent, size * LEADING) for text in wrapped)
    for number, (line, is_last) in enumerate(_marked(found)):
        left = line.left
        if block.kind in ("title", "centred", "formula"):
            left = (sheet.column_width - font(path, size).getlength(line.text)) / 2
        if block.kind == "bullet" and number == 0:
            yield _Line("-", size, base * 0.3, 0.0)
        gap = base * 0.6 if is_last else 0.0
        is_ruled = line.is_ruled or (block.kind == "ruled" and is_last)
        yield _Line(line.text, size, left, line.height + gap, is_ruled)


def _marked(lines: Iterator[_Line]) -> Iterator[tuple[_Line, bool]]:
    """Each line, and whether it is the last one."""
    line = next(lines, None)
    while line is not None:
        following = next(lines, None)
        yield line, following is None
        line = following


def _rows(text: str, size: int, sheet: Sheet) -> Iterator[_Line]:
    """Cells at even distances, each row with a rule below."""
    for row in text.split("\n"):
        cells = row.split("|")
        for number, cell in enumerate(cells):
            is_last = number == len(cells) - 1
            left = sheet.column_width / len(cells) * number
            yield _Line(cell.strip(), size, left, size * LEADING if is_last else 0.0, is_last)


def _wrapped(text: str, drawn: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """`text` in lines no wider than `width`; a longer word is cut."""
    line = ""
    for word in _pieces(text, drawn, width):
        if line and drawn.getlength((line + word).rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += word
    yield line.rstrip()


def _pieces(text: str, drawn: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """Words with the blank after them, single characters of scripts that write none."""
    for found in _WORDS.finditer(text):
        word = found[0]
        while drawn.getlength(word.rstrip()) > width and len(word) > 1:
            fits = max(1, int(len(word) * width / drawn.getlength(word)) - 1)
            yield word[:fits]
            word = word[fits:]
        yield word
