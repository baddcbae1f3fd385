"""Pictures of the data: rows as the model sees them, and how long the texts are."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.base import Picture
from models.language.dataset import Dataset
from models.language.head import IGNORE
from models.language.preview import legible
from models.language.rows import Row

ROWS, LINES = 4, 8
"""Rows that are shown, and lines of each."""
BINS = 40
WIDTH, MARGIN, LETTER, STEP = 960, 24, 15, 20
BACK, GIVEN, LEARNT, PALE = "#ffffff", "#6b7280", "#047857", "#b6bcc6"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Run = tuple[str, str]
"""Text and its colour."""


def pictures(dataset: Dataset) -> list[Picture]:
    """A few training rows with what is learnt of them, and a histogram of lengths."""
    samples = dataset.split("train")
    chosen = sorted(set(np.linspace(0, len(samples) - 1, ROWS).astype(int).tolist()))
    rows = [samples.row(i) for i in chosen]
    kind = "documents" if dataset.text else "answers"
    told = f"{len(rows)} training rows: green is learnt, grey is given"
    return [
        Picture("rows", told, _rows(dataset, rows)),
        Picture("lengths", f"tokens of {len(dataset.lengths):,} {kind}", _lengths(dataset, kind)),
    ]


def runs(dataset: Dataset, row: Row) -> list[Run]:
    """The text of a row in pieces of one colour, such as a prompt and its answer."""
    tokens = np.append(row.inputs, row.labels[-1])
    # What stands first is given: a label is the token after its input.
    is_learnt = np.concatenate(([False], row.labels != IGNORE))
    edges = [0, *(np.flatnonzero(np.diff(is_learnt)) + 1).tolist(), len(tokens)]
    texts = (dataset.tokenizer.decode(tokens[a:b].tolist()) for a, b in pairwise(edges))
    colours = (LEARNT if is_learnt[a] else GIVEN for a in edges[:-1])
    return [(legible(text), colour) for text, colour in zip(texts, colours, strict=True)]


def _rows(dataset: Dataset, rows: Sequence[Row]) -> bytes:
    font = ImageFont.load_default(LETTER)
    laid = [_lines(runs(dataset, row), font) for row in rows]
    height = STEP * (1 + sum(len(lines) + 2 for lines in laid))
    image = Image.new("RGB", (WIDTH, height), BACK)
    pen, y = ImageDraw.Draw(image), STEP
    for row, lines in zip(rows, laid, strict=True):
        pen.text((MARGIN, y), row.name, PALE, font)
        for line in lines:
            x, y = float(MARGIN), y + STEP
            for text, colour in line:
                pen.text((x, y), text, colour, font)
                x += font.getlength(text)
        pen.line((MARGIN, y + 1.5 * STEP, WIDTH - MARGIN, y + 1.5 * STEP), PALE)
        y += 2 * STEP
    return _png(image)


def _lines(pieces: Sequence[Run], font: Font) -> list[list[Run]]:
    """`pieces` broken at line ends and at the right edge, as far as LINES go."""
    lines: list[list[Run]] = [[]]
    x = 0.0
    for text, colour in pieces:
        for letter in text.replace("\t", "    "):
            width = font.getlength(letter) if letter != "\n" else 0.0
            if letter == "\n" or x + width > WIDTH - 2 * MARGIN:
                lines, x = [*lines, []], 0.0
                if len(lines) > LINES:
                    return [*lines[: LINES - 1], [*lines[LINES - 1], (" …", GIVEN)]]
            if letter != "\n":
                lines[-1].append((letter, colour))
                x += width
    return lines


def _lengths(dataset: Dataset, kind: str) -> bytes:
    """How many texts have how many tokens: bins of equal ratio, as lengths differ by far."""
    height, font, lengths = 320, ImageFont.load_default(LETTER), dataset.lengths
    low, high = max(1, int(lengths.min())), int(lengths.max()) + 1
    edges = np.geomspace(low, high, min(BINS, high - low) + 1)
    counts = np.histogram(lengths, edges)[0]
    image = Image.new("RGB", (WIDTH, height), BACK)
    pen, base = ImageDraw.Draw(image), height - 2 * STEP
    width = (WIDTH - 2 * MARGIN) / len(counts)
    for i, count in enumerate(counts):
        top = base - (base - 2 * STEP) * count / counts.max()
        pen.rectangle((MARGIN + i * width + 1, top, MARGIN + (i + 1) * width - 1, base), LEARNT)
    pen.line((MARGIN, base, WIDTH - MARGIN, base), GIVEN)
    pen.text((MARGIN, 8), f"up to {counts.max():,} {kind}", GIVEN, font)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = MARGIN + share * (WIDTH - 2 * MARGIN)
        anchor = "la" if share == 0 else "ra" if share == 1 else "ma"
        told = f"{low * (high / low) ** share:,.0f}" + (" tokens" if share == 1 else "")
        pen.text((x, base + 8), told, GIVEN, font, anchor=anchor)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
