"""Pictures of EEG: a trace for some channels of each region, under the sentence that was read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.base import Picture
from models.eeg_text.montage import INDICES, SLOTS
from models.eeg_text.recordings import RATE_HZ

WIDTH, ROW, LEFT, TOP, BOTTOM = 1000, 26, 150, 40, 30
PER_REGION = 2
_INK, _TRACE, _GUESS, _LINE = (20, 20, 20), (31, 92, 153), (194, 65, 12), (222, 222, 222)


def draw(
    name: str, eeg: np.ndarray, title: str, caption: str, guess: np.ndarray | None = None
) -> Picture:
    """A picture of `eeg` [time, 105] in standard deviations; six of them are a row high.

    `guess`, alike, is drawn over it in red; NaN is left out.
    """
    rows = [
        (region, channel)
        for region, channels in INDICES.items()
        for channel in _moving(eeg, channels)[:PER_REGION]
    ]
    image = Image.new("RGB", (WIDTH, TOP + ROW * max(1, len(rows)) + BOTTOM), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    printable = title.encode("latin-1", "replace").decode("latin-1")  # what the font has
    lines = "\n".join(line[:120] for line in printable.split("\n"))
    pen.text((LEFT, 8), lines, fill=_INK, font=font)
    x = LEFT + np.arange(len(eeg)) * (WIDTH - LEFT - 20) / max(1, len(eeg) - 1)
    for number, (region, channel) in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        pen.line([(LEFT, middle), (WIDTH - 20, middle)], fill=_LINE)
        pen.text((8, middle - 6), f"{region} {SLOTS[channel]}", fill=_INK, font=font)
        y = middle - eeg[:, channel] * ROW / 6
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_TRACE)
        if guess is not None:
            over = middle - guess[:, channel] * ROW / 6
            told = np.flatnonzero(np.isfinite(over))
            for part in np.split(told, np.flatnonzero(np.diff(told) > 1) + 1):
                pen.line(list(zip(x[part].tolist(), over[part].tolist(), strict=True)), fill=_GUESS)
    _scale(pen, font, x, image.height - BOTTOM)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Picture(name, caption, stream.getvalue())


def _moving(eeg: np.ndarray, channels: tuple[int, ...]) -> list[int]:
    """Those of `channels` that were recorded."""
    return [channel for channel in channels if eeg[:, channel].any()]


def _scale(pen: ImageDraw.ImageDraw, font: object, x: np.ndarray, top: float) -> None:
    """A mark at every fifth of a second."""
    for sample in range(0, len(x), RATE_HZ // 5):
        pen.line([(x[sample], top), (x[sample], top + 5)], fill=_INK)
        pen.text((x[sample] - 8, top + 8), f"{sample / RATE_HZ:.1f} s", fill=_INK, font=font)  # type: ignore[arg-type]
