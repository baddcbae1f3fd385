"""Blocks of text rendered as pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw, ImageFont

HEIGHT = 896
WIDTH = 672
GAP = 28
"""Pixels of a page, and between two columns."""
LETTERS = (22, 20, 18, 16, 14, 12, 11, 10, 9, 8)
"""Letter heights in pixels, tried in turn until the page fits."""
LEADING = 1.35
"""Line height as a multiple of the letter height."""
_SCALE = {"title": 1.6, "centered": 1.25, "ruled": 1.25, "numbered": 1.25}

Kind = Literal["title", "centered", "ruled", "numbered", "paragraph", "bullet", "formula", "table"]


class PageBlock(NamedTuple):
    """One block of a page. A table has one line per row and `|` between cells."""

    kind: Kind
    text: str


class _Line(NamedTuple):
    """Text in a column: letter height, left offset, height, and whether a rule is below it."""

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


def draw(
    blocks: Sequence[PageBlock],
    margin: int,
    columns: int,
) -> Image.Image:
    """A grey page of `blocks` in the largest letters that fit."""
    width = (WIDTH - 2 * margin - (columns - 1) * GAP) // columns
    for base in LETTERS:
        column = 0
        y = float(margin)
        placed = []
        for line in chain.from_iterable(
            _lines(
                block,
                base,
                width,
            )
            for block in blocks
        ):
            if y + line.height > HEIGHT - margin:  # the column is full
                column += 1
                y = float(margin)
            placed.append((line, margin + column * (width + GAP), y))
            y += line.height
        if column < columns:
            break

    page = Image.new(
        "L",
        (WIDTH, HEIGHT),
        255,
    )
    pen = ImageDraw.Draw(page)
    for line, x, y in placed:
        pen.text(
            (x + line.left, y),
            line.text,
            font=font(line.size),
            fill=0,
        )
        if line.is_ruled:
            rule = y + line.size * 1.2
            pen.line(
                (x, rule, x + width, rule),
                fill=0,
                width=2,
            )
    return page


def _lines(
    block: PageBlock,
    base: int,
    width: int,
) -> list[_Line]:
    """Lines of a block; the last one includes the gap to the next block."""
    size = round(base * _SCALE.get(block.kind, 1.0))
    height = size * LEADING
    lines = []
    if block.kind == "table":
        for row in block.text.split("\n"):
            cells = row.split("|")
            for n, cell in enumerate(cells):
                # All cells of a row but the last one leave the pen where it is.
                lines.append(_Line(cell, size, width / len(cells) * n, 0.0))
            lines[-1] = lines[-1]._replace(height=height, is_ruled=True)
    else:
        left = 0.0
        if block.kind == "bullet":
            left = base * 1.2
            lines.append(_Line("-", size, base * 0.3, 0.0))
        face = font(size)
        for text in _wrapped(block.text, face, width - left):
            if block.kind in ("title", "centered", "formula"):
                left = (width - face.getlength(text)) / 2
            lines.append(_Line(text, size, left, height))
    # The gap to the next block.
    last = lines[-1]
    lines[-1] = last._replace(
        height=last.height + base * 0.6,
        is_ruled=last.is_ruled or block.kind == "ruled",
    )
    return lines


def _wrapped(
    text: str,
    face: ImageFont.FreeTypeFont,
    width: float,
) -> Iterator[str]:
    """Wrap `text` to lines of at most `width`."""
    line, *others = text.split(" ")
    for word in others:
        if face.getlength(f"{line} {word}") > width:
            yield line
            line = word
        else:
            line += f" {word}"
    yield line
