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
WIDTH, ROW, LEFT, EDGE = 720, 44, 90, 34
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
    from PIL import Image, ImageDraw

    mine = mine[np.argsort(-responses.static[mine, 1], kind="stable")][:MOST]
    height = ROW * len(mine) + 2 * EDGE
    image = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    signal = np.asarray(responses.signal[mine], np.float64)
    # A few traces of muscle must not make all others flat.
    scale = 0.8 * ROW / (np.quantile(np.abs(signal), 0.995) or 1.0)
    across = LEFT + (np.arange(signal.shape[1]) + 0.5) / signal.shape[1] * (WIDTH - LEFT - EDGE)
    a_ms = (WIDTH - LEFT - EDGE) / responses.origin.window_ms
    for ms in range(int(responses.origin.window_ms) + 1):
        x = LEFT + ms * a_ms
        pen.line((x, EDGE, x, height - EDGE), fill="#e8ebee")
        pen.text((x - 4, height - EDGE + 8), str(ms), fill=INK)
    pen.text((WIDTH - EDGE - 4, height - EDGE + 20), "ms", fill=INK)
    for row, (response, trace) in enumerate(zip(mine, signal, strict=True)):
        middle = EDGE + ROW * (row + 0.5)
        pen.line((LEFT, middle, WIDTH - EDGE, middle), fill=GREY)
        points = zip(across, middle - scale * trace, strict=True)
        pen.line([(float(x), float(y)) for x, y in points], fill=INK, width=2)
        level = responses.static[response, 1]
        pen.text((8, middle - 6), f"{level:g} dB" if np.isfinite(level) else "–", fill=INK)
        latency = responses.labels["latency"][response]
        if np.isfinite(latency):
            x = LEFT + float(latency) * a_ms
            pen.line((x, middle - 0.45 * ROW, x, middle + 0.45 * ROW), fill=MARK, width=2)
            pen.text((x + 3, middle - 0.48 * ROW), "V", fill=MARK)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
