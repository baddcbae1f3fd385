"""Pictures of signals over time: rows of traces with a common axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gearshift.models.common.predictions import png

WIDTH = 1000
LEFT = 150
RIGHT = 20
EDGE = 40
INK = "#1b1f24"
GREY = "#c4cad0"
MARK = "#c2410c"


class TraceRow(NamedTuple):
    """A row of a picture."""

    name: str
    traces: Sequence[tuple[np.ndarray, str]]
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

    bottom = EDGE + height * max(1, len(rows))
    span = WIDTH - LEFT - RIGHT
    image = Image.new("RGB", (WIDTH, bottom + EDGE), "white")
    pen = ImageDraw.Draw(image)
    heading = title.encode("latin-1", "replace").decode("latin-1")  # what the font has
    pen.text((LEFT, 8), "\n".join(line[:120] for line in heading.split("\n")), fill=INK)
    for share, text in ticks:
        x = LEFT + share * span
        pen.line((x, EDGE, x, bottom), fill="#e8ebee")
        pen.text((x - 4, bottom + 8), text, fill=INK)
    for number, row in enumerate(rows):
        middle = EDGE + height * (number + 0.5)
        pen.line((LEFT, middle, WIDTH - RIGHT, middle), fill=GREY)
        pen.text((8, middle - 6), row.name, fill=INK)
        for trace, color in row.traces:
            across = LEFT + (np.arange(len(trace)) + 0.5) / len(trace) * span
            points = np.stack((across, middle - scale * np.asarray(trace, np.float64)), axis=1)
            known = np.flatnonzero(np.isfinite(points[:, 1]))
            for part in np.split(
                known, np.flatnonzero(np.diff(known) > 1) + 1
            ):  # NaN interrupts a line
                pen.line(
                    points[part].ravel().tolist(), fill=color, width=2 if len(rows) < 17 else 1
                )
        for share, color, text in row.marks:
            if np.isfinite(share):
                x = LEFT + share * span
                half = 0.45 * height
                pen.line((x, middle - half, x, middle + half), fill=color, width=2)
                pen.text((x + 3, middle - half), text, fill=color)
    return png(image)
