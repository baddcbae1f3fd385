"""Pictures of signals over time: rows of traces with a common axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from gearshift.models.common.predictions import png

WIDTH = 1000
LEFT = 150
RIGHT = 20
_SPAN = WIDTH - LEFT - RIGHT
EDGE = 40
INK = "#1b1f24"
GREY = "#c4cad0"
MARK = "#c2410c"


class TraceRow(NamedTuple):
    """A row of a picture."""

    name: str
    traces: Sequence[tuple[ndarray, str]]
    """The points, NaN where there is no line, and the color."""
    marks: Sequence[tuple[float, str, str]] = ()
    """A time as a share of the axis, NaN for no mark, the color and the text."""


def draw_traces(
    rows: Sequence[TraceRow],
    ticks: Sequence[tuple[float, str]],
    height: int,
    scale: float,
    title: str = "",
) -> bytes:
    """The PNG of `rows`.

    `ticks`: a time as a share of the axis, and its text; `height` of a row, and `scale`, that of
    the value 1, in pixels.
    """
    from PIL import Image, ImageDraw

    bottom = EDGE + height * len(rows)
    image = Image.new("RGB", (WIDTH, bottom + EDGE), "white")
    pen = ImageDraw.Draw(image)
    pen.text((LEFT, 8), title, fill=INK)
    for share, text in ticks:
        x = LEFT + share * _SPAN
        pen.line((x, EDGE, x, bottom), fill="#e8ebee")
        pen.text((x - 4, bottom + 8), text, fill=INK)

    for number, row in enumerate(rows):
        middle = EDGE + height * (number + 0.5)
        pen.line((LEFT, middle, WIDTH - RIGHT, middle), fill=GREY)
        pen.text((8, middle - 6), row.name, fill=INK)
        for trace, color in row.traces:
            y = middle - scale * np.asarray(trace, np.float64)
            times = (np.arange(len(y)) + 0.5) / len(y)
            points = np.stack((LEFT + _SPAN * times, y), axis=1)
            # NaN interrupts a line.
            for part in np.ma.clump_unmasked(np.ma.masked_invalid(y)):
                pen.line(points[part].ravel().tolist(), fill=color, width=2)
        half = 0.45 * height
        for share, color, text in row.marks:
            if np.isfinite(share):
                x = LEFT + share * _SPAN
                top = middle - half
                pen.line((x, top, x, middle + half), fill=color, width=2)
                pen.text((x + 3, top), text, fill=color)
    return png(image)
