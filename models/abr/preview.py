"""What the model says of the first validation responses, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from models.abr.config import CLASSES
from models.abr.dataset import Portion, collate
from models.abr.responses import CLASS_NAMES, Responses
from models.base import Picture, Predictions
from models.common.fixed_samples import few_samples, spread_positions

RESPONSES = 64
"""Of the validation split, spread over it."""
BARS = "▁▂▃▄▅▆▇█"
TRACE_COLUMNS = 66


@torch.no_grad()
def show(model: Module, portion: Portion, device: torch.device) -> str:
    """A response and its reconstruction, and which classes were taken for which. Collective.

    One forward pass, on every rank the same.
    """
    batch = collate(few_samples(portion, RESPONSES))
    training = model.training
    model.eval()
    try:
        told = model(batch["signal"].to(device), batch["static"].to(device))
    finally:
        model.train(training)
    texts = [_traces(batch["signal"][0, 0], told["signal"][0, 0].float().cpu())]
    if "class" in told:
        texts.append(_confusion(batch["target"], told["class"].argmax(-1).cpu()))
    return "\n".join(texts)


def _traces(true: Tensor, told: Tensor) -> str:
    low, high = float(true.min()), float(true.max())
    rows = (("response", true), ("reconstructed", told))
    return "\n".join(f"{name:<14} {_bars(trace, low, high)}" for name, trace in rows)


def _bars(trace: Tensor, low: float, high: float) -> str:
    """`trace` as a line of blocks, `low` to `high`."""
    place = np.linspace(0, len(trace) - 1, TRACE_COLUMNS).astype(int)
    share = (trace.numpy()[place] - low) / max(high - low, 1e-9)
    return "".join(BARS[i] for i in (share * len(BARS)).astype(int).clip(0, len(BARS) - 1))


def _confusion(target: Tensor, told: Tensor) -> str:
    known = target >= 0
    counts = torch.bincount((target * CLASSES + told)[known], minlength=CLASSES**2)
    head = f"{'true, told →':<14} " + " ".join(f"{name:>13}" for name in CLASS_NAMES)
    rows = [
        f"{name:<14} " + " ".join(f"{count:>13}" for count in row)
        for name, row in zip(CLASS_NAMES, counts.view(CLASSES, CLASSES).tolist(), strict=True)
    ]
    return "\n".join([head, *rows])


SHOWN = 4
UNKNOWN = "–"
COLUMNS = (
    "response",
    "class",
    "class told",
    "probability",
    "threshold dB",
    "threshold told",
    "wave V ms",
    "wave V told",
    "error µV",
)


def predict(model: Module, portion: Portion, device: torch.device) -> Predictions:
    """Responses spread over a split. One forward pass, collective."""
    batch = collate(few_samples(portion, SHOWN))
    told = model(batch["signal"].to(device), batch["static"].to(device))
    told = {term: x.float().cpu() for term, x in told.items()}
    rows, pictures = [], []
    for row, place in enumerate(spread_positions(len(portion), SHOWN)):
        own = _Told({term: x[row] for term, x in told.items()}, portion, place)
        rows.append(own.row())
        pictures.append(own.picture(f"response_{row + 1}"))
    return Predictions(COLUMNS, rows, pictures)


class _Told:
    """What is known and what was told of one response."""

    def __init__(self, told: Mapping[str, Tensor], portion: Portion, place: int) -> None:
        self.responses, self.told = portion.responses, told
        self.known = int(portion.index[place])
        seen = int(portion.signal_of[place])
        self.wanted = np.asarray(self.responses.signal[seen], np.float32)
        self.signal = told["signal"][0].numpy() * np.float32(portion.statistics.signal_rms)
        self.name = f"{self.responses.patient[self.known]}, {level_of(self.responses, self.known)}"

    def row(self) -> tuple[str | float, ...]:
        """In the order of COLUMNS."""
        shares = self.told["class"].softmax(-1) if "class" in self.told else None
        target = int(self.responses.target[self.known])
        return (
            self.name,
            CLASS_NAMES[target] if target >= 0 else UNKNOWN,
            UNKNOWN if shares is None else CLASS_NAMES[int(shares.argmax())],
            UNKNOWN if shares is None else float(shares.max()),
            _shown(self._label("threshold")),
            _shown(self._said("threshold")),
            _shown(self._label("latency")),
            _shown(self._latency()),
            float(np.sqrt(np.square(self.signal - self.wanted).mean())),
        )

    def picture(self, name: str) -> Picture:
        """The response as it was recorded, and as it was told."""
        latencies = self._label("latency"), self._latency()
        window = self.responses.origin.window_ms
        caption = f"{self.name}: recorded (dark) and told (red), wave V marked"
        return Picture(name, caption, compare(self.wanted, self.signal, latencies, window))

    def _label(self, name: str) -> float:
        return float(self.responses.labels[name][self.known])

    def _said(self, name: str) -> float:
        return float(self.told[name]) if name in self.told else nan

    def _latency(self) -> float:
        """NaN where it is told that there is no wave V."""
        return nan if self._said("exists") < 0 else self._said("latency")


def _shown(value: float) -> str | float:
    return value if np.isfinite(value) else UNKNOWN


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
