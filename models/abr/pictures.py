"""A picture of responses: one patient's traces by level, with wave V marked."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from models.abr.dataset import Portion
from models.abr.responses import CLASS_NAMES, Responses
from models.base import Picture

MOST = 16
"""Traces in one picture."""
WIDTH, ROW, TALL, LEFT, EDGE = 720, 44, 180, 90, 34
INK, GREY, MARK = "#1b1f24", "#b8bfc7", "#c2410c"


def level_series(portion: Portion) -> list[Picture]:
    """The training patient with the most levels, and, where there are classes, one of another."""
    responses, found = portion.responses, []
    index = np.unique(portion.index)
    seen: set[int] = set()
    for patient in _by_levels(responses, index):
        mine = index[responses.patient[index] == patient]
        target = int(responses.target[mine[0]])
        if target in seen:
            continue
        seen.add(target)
        kind = CLASS_NAMES[target] if target >= 0 else "hearing loss not known"
        caption = f"{patient}, {kind}: responses by level, wave V marked where it is known"
        found.append(Picture(f"responses-{len(seen)}", caption, _draw(responses, mine)))
        if len(found) == 2:
            break
    return found


def _by_levels(responses: Responses, index: NDArray[np.int64]) -> list[str]:
    """The patients, those with the most responses first."""
    names, counts = np.unique(responses.patient[index], return_counts=True)
    return [str(name) for name in names[np.argsort(-counts, kind="stable")]]


def _draw(responses: Responses, mine: NDArray[np.int64]) -> bytes:
    """The PNG; traces share one scale, the loudest on top."""
    mine = mine[np.argsort(-responses.static[mine, 1], kind="stable")][:MOST]
    signal = np.asarray(responses.signal[mine], np.float64)
    # A few traces of muscle must not make all others flat.
    sheet = _Sheet(
        len(mine), ROW, responses.origin.window_ms, float(np.quantile(abs(signal), 0.995))
    )
    for row, (response, trace) in enumerate(zip(mine, signal, strict=True)):
        sheet.begin(row, level_of(responses, response))
        sheet.trace(row, trace, INK)
        sheet.mark(row, float(responses.labels["latency"][response]), MARK, "V")
    return sheet.png()


def level_of(responses: Responses, response: int) -> str:
    """How loud it was, for a person."""
    level = responses.static[response, 1]
    return f"{level:g} dB" if np.isfinite(level) else "–"


def compare(
    wanted: NDArray[np.float32],
    told: NDArray[np.float32],
    latencies: tuple[float, float],
    window_ms: float,
) -> bytes:
    """The PNG of a response as it was recorded, dark, and as it was told, red, both [point] in µV;
    wave V is marked at `latencies`, recorded and told, in ms, but where one is NaN."""
    sheet = _Sheet(1, TALL, window_ms, 2 * float(max(abs(wanted).max(), abs(told).max())))
    sheet.begin(0, "uV")  # the font has no µ
    for trace, latency, colour, end in zip(
        (wanted, told), latencies, (INK, MARK), ("", "?"), strict=True
    ):
        sheet.trace(0, np.asarray(trace, np.float64), colour)
        sheet.mark(0, latency, colour, "V" + end)
    return sheet.png()


class _Sheet:
    """Paper with a line at each ms, on which traces share one scale, row by row."""

    def __init__(self, rows: int, row: int, window_ms: float, largest: float) -> None:
        """`row` is how high a row is, in dots; `largest`, in µV, is as high as most of it."""
        from PIL import Image, ImageDraw

        height = row * rows + 2 * EDGE
        self._row, self._scale = row, 0.8 * row / (largest or 1.0)
        self._image = Image.new("RGB", (WIDTH, height), "white")
        self._pen = ImageDraw.Draw(self._image)
        self._a_ms = (WIDTH - LEFT - EDGE) / window_ms
        for ms in range(int(window_ms) + 1):
            x = LEFT + ms * self._a_ms
            self._pen.line((x, EDGE, x, height - EDGE), fill="#e8ebee")
            self._pen.text((x - 4, height - EDGE + 8), str(ms), fill=INK)
        self._pen.text((WIDTH - EDGE - 4, height - EDGE + 20), "ms", fill=INK)

    def _middle(self, row: int) -> float:
        return EDGE + self._row * (row + 0.5)

    def begin(self, row: int, name: str) -> None:
        """The line of 0 µV of a row, and its name."""
        middle = self._middle(row)
        self._pen.line((LEFT, middle, WIDTH - EDGE, middle), fill=GREY)
        self._pen.text((8, middle - 6), name, fill=INK)

    def trace(self, row: int, values: NDArray[np.float64], colour: str) -> None:
        """`values` [point], in µV."""
        across = LEFT + (np.arange(len(values)) + 0.5) / len(values) * (WIDTH - LEFT - EDGE)
        points = zip(across, self._middle(row) - self._scale * values, strict=True)
        self._pen.line([(float(x), float(y)) for x, y in points], fill=colour, width=2)

    def mark(self, row: int, ms: float, colour: str, letter: str) -> None:
        """A line across a row at `ms`; none where that is NaN."""
        if np.isfinite(ms):
            x, middle = LEFT + ms * self._a_ms, self._middle(row)
            half = 0.45 * self._row
            self._pen.line((x, middle - half, x, middle + half), fill=colour, width=2)
            self._pen.text((x + 3, middle - half), letter, fill=colour)

    def png(self) -> bytes:
        """All that was drawn."""
        file = BytesIO()
        self._image.save(file, "PNG")
        return file.getvalue()
