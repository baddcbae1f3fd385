"""Text preview, predictions and pictures of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from models.abr.config import CLASS_NAMES, CLASSES
from models.abr.dataset import MaskedSplit, ResponseSplit, collate, collate_masked
from models.abr.metric import MASKED
from models.abr.responses import Responses
from models.base import Batch, Picture, Predictions
from models.common.predictions import (
    evaluating,
    few_samples,
    known_lines,
    placed,
    png,
    scores_of,
    spread_positions,
)

PREVIEW_RESPONSES = 64
"""Responses of the text preview, spread over the validation split."""
BARS = "▁▂▃▄▅▆▇█"
BAR_COLUMNS = 66

SHOWN = 4
"""Responses of the predictions."""
UNKNOWN = "–"
COLUMNS = (
    "response",
    "class",
    "predicted class",
    "probability",
    "threshold dB",
    "predicted threshold",
    "wave V ms",
    "predicted wave V",
    "error µV",
)

MAX_TRACES = 16
"""Traces in one picture."""
WIDTH, ROW, TALL_ROW, LEFT, EDGE = 720, 44, 180, 90, 34
INK, GREY, MARK = "#1b1f24", "#b8bfc7", "#c2410c"


def render_preview(model: Module, split: ResponseSplit, device: torch.device) -> str:
    """A response with its reconstruction, and the confusion matrix of the classes.

    One forward pass, the same on every rank. Collective.
    """
    batch = collate(few_samples(split, PREVIEW_RESPONSES))
    with evaluating(model):
        outputs = model(batch["signal"].to(device), batch["static"].to(device))
    true, guess = batch["signal"][0, 0], outputs["signal"][0, 0].float().cpu()
    low, high = float(true.min()), float(true.max())
    rows = (("response", true), ("reconstructed", guess))
    texts = [f"{name:<14} {_bars(trace, low, high)}" for name, trace in rows]
    if "class" in outputs:
        texts.append(_confusion(batch["target"], outputs["class"].argmax(-1).cpu()))
    return "\n".join(texts)


def render_masked(model: Module, split: MaskedSplit, device: torch.device) -> str:
    """A response, its visible points, and these with the predictions of the masked ones.

    One forward pass, the same on every rank. Collective.
    """
    with evaluating(model):
        batch, guess = _masked_guess(model, split, 1, device)
    true, hidden = batch["signal"][0, 0].cpu(), batch["hidden"][0].cpu()
    low, high = float(true.min()), float(true.max())
    filled = torch.where(hidden, guess[0, 0].cpu(), true)
    rows = (("response", true), ("visible", true.masked_fill(hidden, nan)), ("predicted", filled))
    return "\n".join(f"{name:<14} {_bars(trace, low, high)}" for name, trace in rows)


def _masked_guess(
    model: Module, split: MaskedSplit, limit: int, device: torch.device
) -> tuple[Batch, Tensor]:
    """A batch of at most `limit` responses, and the prediction of all their points."""
    batch = placed(collate_masked(few_samples(split, limit)), device)
    return batch, MASKED.predict(model, batch).float()


def _bars(trace: Tensor, low: float, high: float) -> str:
    """`trace` as a line of block characters, scaled from `low` to `high`; NaN is a blank."""
    points = np.linspace(0, len(trace) - 1, BAR_COLUMNS).astype(int)
    share = (trace.numpy()[points] - low) / max(high - low, 1e-9)
    levels = (np.nan_to_num(share) * len(BARS)).astype(int).clip(0, len(BARS) - 1)
    blank = np.isnan(share)
    return "".join(" " if no else BARS[i] for i, no in zip(levels, blank, strict=True))


def _confusion(target: Tensor, predicted: Tensor) -> str:
    known = target >= 0
    counts = torch.bincount((target * CLASSES + predicted)[known], minlength=CLASSES**2)
    head = f"{'true, pred. →':<14} " + " ".join(f"{name:>13}" for name in CLASS_NAMES)
    rows = [
        f"{name:<14} " + " ".join(f"{count:>13}" for count in row)
        for name, row in zip(CLASS_NAMES, counts.view(CLASSES, CLASSES).tolist(), strict=True)
    ]
    return "\n".join([head, *rows])


def build_predictions(model: Module, split: ResponseSplit, device: torch.device) -> Predictions:
    """Predictions for a few responses spread over a split. One forward pass, collective."""
    batch = collate(few_samples(split, SHOWN))
    outputs = model(batch["signal"].to(device), batch["static"].to(device))
    outputs = {term: x.float().cpu() for term, x in outputs.items()}
    rows, pictures = [], []
    for row, index in enumerate(spread_positions(len(split), SHOWN)):
        prediction = _Prediction({term: x[row] for term, x in outputs.items()}, split, index)
        rows.append(prediction.row())
        pictures.append(prediction.picture(f"response_{row + 1}"))
    return Predictions(COLUMNS, rows, pictures)


MASKED_COLUMNS = ("response", "masked_r2", "interpolation_r2")


def masked_predictions(model: Module, split: MaskedSplit, device: torch.device) -> Predictions:
    """Predicted masked points of a few responses of a split. One forward pass, collective."""
    batch, guess = _masked_guess(model, split, SHOWN, device)
    responses = split.responses.responses
    shown = (
        torch.where(batch["hidden"][:, None], guess, nan) * split.responses.statistics.signal_rms
    )
    rows, pictures = [], []
    for row, position in enumerate(spread_positions(len(split), SHOWN)):
        scores = scores_of(MASKED, guess, batch, row)
        response = int(split.responses.index[position])
        name = f"{responses.patient[response]}, {_level(responses, response)}"
        rows.append((name, scores["val_masked_r2"], scores["val_interpolation_r2"]))
        recorded = np.asarray(responses.signal[response], np.float32)
        predicted, window = shown[row, 0].cpu().numpy(), responses.origin.window_ms
        image = draw_comparison(recorded, predicted, (nan, nan), window)
        caption = f"{name}: recorded (dark), and predicted masked points (red)"
        pictures.append(Picture(f"response_{row + 1}", caption, image))
    return Predictions(MASKED_COLUMNS, rows, pictures)


class _Prediction:
    def __init__(self, outputs: Mapping[str, Tensor], split: ResponseSplit, index: int) -> None:
        self.responses, self.outputs = split.responses, outputs
        self.labeled = int(split.index[index])
        self.recorded = np.asarray(self.responses.signal[split.signal_of[index]], np.float32)
        self.signal = outputs["signal"][0].numpy() * np.float32(split.statistics.signal_rms)
        patient = self.responses.patient[self.labeled]
        self.name = f"{patient}, {_level(self.responses, self.labeled)}"

    def row(self) -> tuple[str | float, ...]:
        """The cells, in the order of COLUMNS."""
        shares = self.outputs["class"].softmax(-1) if "class" in self.outputs else None
        target = int(self.responses.target[self.labeled])
        return (
            self.name,
            CLASS_NAMES[target] if target >= 0 else UNKNOWN,
            UNKNOWN if shares is None else CLASS_NAMES[int(shares.argmax())],
            UNKNOWN if shares is None else float(shares.max()),
            _cell(self._label("threshold")),
            _cell(self._output("threshold")),
            _cell(self._label("latency")),
            _cell(self._latency()),
            float(np.sqrt(np.square(self.signal - self.recorded).mean())),
        )

    def picture(self, name: str) -> Picture:
        latencies = self._label("latency"), self._latency()
        window = self.responses.origin.window_ms
        caption = f"{self.name}: recorded (dark) and predicted (red), wave V marked"
        image = draw_comparison(self.recorded, self.signal, latencies, window)
        return Picture(name, caption, image)

    def _label(self, name: str) -> float:
        return float(self.responses.labels[name][self.labeled])

    def _output(self, name: str) -> float:
        return float(self.outputs[name]) if name in self.outputs else nan

    def _latency(self) -> float:
        """NaN if no wave V is predicted."""
        return nan if self._output("exists") < 0 else self._output("latency")


def _cell(value: float) -> str | float:
    return value if np.isfinite(value) else UNKNOWN


def level_series(split: ResponseSplit) -> list[Picture]:
    """Pictures of the patient with the most responses and, if known, one of another class."""
    responses, pictures = split.responses, []
    index = np.unique(split.index)
    seen: set[int] = set()
    patients, counts = np.unique(responses.patient[index], return_counts=True)
    for patient in patients[np.argsort(-counts, kind="stable")]:
        of_patient = index[responses.patient[index] == patient]
        target = int(responses.target[of_patient[0]])
        if target in seen:
            continue
        seen.add(target)
        kind = CLASS_NAMES[target] if target >= 0 else "hearing loss unknown"
        caption = f"{patient}, {kind}: responses by level, known waves V marked"
        pictures.append(
            Picture(f"responses-{len(seen)}", caption, _draw_levels(responses, of_patient))
        )
        if len(pictures) == 2:
            break
    return pictures


def _draw_levels(responses: Responses, shown: NDArray[np.int64]) -> bytes:
    """The PNG of the responses `shown`, on one scale, highest level first."""
    shown = shown[np.argsort(-responses.static[shown, 1], kind="stable")][:MAX_TRACES]
    signal = np.asarray(responses.signal[shown], np.float64)
    # A quantile: a few traces with muscle artifacts must not flatten all others.
    largest = float(np.quantile(abs(signal), 0.995))
    sheet = _TraceSheet(len(shown), ROW, responses.origin.window_ms, largest)
    for row, (response, trace) in enumerate(zip(shown, signal, strict=True)):
        sheet.axis(row, _level(responses, response))
        sheet.trace(row, trace, INK)
        sheet.mark(row, float(responses.labels["latency"][response]), MARK, "V")
    return sheet.png()


def _level(responses: Responses, response: int) -> str:
    level = responses.static[response, 1]
    return f"{level:g} dB" if np.isfinite(level) else UNKNOWN


def draw_comparison(
    recorded: NDArray[np.float32],
    predicted: NDArray[np.float32],
    latencies: tuple[float, float],
    window_ms: float,
) -> bytes:
    """The PNG of a recorded (dark) and a predicted (red) response, both [point] in µV.

    Wave V is marked at `latencies`, recorded and predicted, in ms. NaN is not drawn.
    """
    largest = 2 * float(max(abs(recorded).max(), np.nanmax(abs(predicted))))
    sheet = _TraceSheet(1, TALL_ROW, window_ms, largest)
    sheet.axis(0, "uV")  # the font has no µ
    for trace, latency, color, letter in zip(
        (recorded, predicted), latencies, (INK, MARK), ("V", "V?"), strict=True
    ):
        sheet.trace(0, np.asarray(trace, np.float64), color)
        sheet.mark(0, latency, color, letter)
    return sheet.png()


@dataclass(frozen=True)
class Trace:
    """A response and its prediction."""

    name: str
    level: float
    """In dB; NaN: unknown."""
    recorded: NDArray[np.float32]
    """[200], in µV; so is `predicted`."""
    predicted: NDArray[np.float32]
    latency: float
    """Predicted latency of wave V in ms; NaN: none."""


def draw_series(traces: Sequence[Trace], window_ms: float) -> bytes:
    """The PNG of responses (dark) with their predictions (red), on one scale.

    At most MAX_TRACES, those of the highest levels.
    """
    levels = np.array([trace.level for trace in traces])
    order = np.argsort(-np.nan_to_num(levels, nan=-np.inf), kind="stable")[:MAX_TRACES]
    shown = [traces[number] for number in order]
    signal = np.stack([(trace.recorded, trace.predicted) for trace in shown])
    largest = float(np.quantile(abs(signal), 0.995))
    sheet = _TraceSheet(len(shown), TALL_ROW if len(shown) == 1 else ROW, window_ms, largest)
    for row, trace in enumerate(shown):
        sheet.axis(row, trace.name)
        sheet.trace(row, np.asarray(trace.recorded, np.float64), INK)
        sheet.trace(row, np.asarray(trace.predicted, np.float64), MARK)
        sheet.mark(row, trace.latency, MARK, "V?")
    return sheet.png()


class _TraceSheet:
    """An image with a time grid, on which rows of traces share one scale."""

    def __init__(self, rows: int, row: int, window_ms: float, largest: float) -> None:
        """`row`: the height of a row in pixels; `largest`: the amplitude in µV that fills it."""
        from PIL import Image, ImageDraw

        height = row * rows + 2 * EDGE
        self._row, self._scale = row, 0.8 * row / (largest or 1.0)
        self._image = Image.new("RGB", (WIDTH, height), "white")
        self._pen = ImageDraw.Draw(self._image)
        self._per_ms = (WIDTH - LEFT - EDGE) / window_ms
        for ms in range(int(window_ms) + 1):
            x = LEFT + ms * self._per_ms
            self._pen.line((x, EDGE, x, height - EDGE), fill="#e8ebee")
            self._pen.text((x - 4, height - EDGE + 8), str(ms), fill=INK)
        self._pen.text((WIDTH - EDGE - 4, height - EDGE + 20), "ms", fill=INK)

    def _middle(self, row: int) -> float:
        return EDGE + self._row * (row + 0.5)

    def axis(self, row: int, name: str) -> None:
        """Draw the 0 µV line of a row and its name."""
        middle = self._middle(row)
        self._pen.line((LEFT, middle, WIDTH - EDGE, middle), fill=GREY)
        self._pen.text((8, middle - 6), name, fill=INK)

    def trace(self, row: int, values: NDArray[np.float64], color: str) -> None:
        """Draw `values` [point], in µV; a line for each span without NaN."""
        across = LEFT + (np.arange(len(values)) + 0.5) / len(values) * (WIDTH - LEFT - EDGE)
        y = self._middle(row) - self._scale * values
        for line in known_lines(across, y):
            self._pen.line(line, fill=color, width=2)

    def mark(self, row: int, ms: float, color: str, letter: str) -> None:
        """Draw a vertical mark at `ms`, unless it is NaN."""
        if np.isfinite(ms):
            x, middle = LEFT + ms * self._per_ms, self._middle(row)
            half = 0.45 * self._row
            self._pen.line((x, middle - half, x, middle + half), fill=color, width=2)
            self._pen.text((x + 3, middle - half), letter, fill=color)

    def png(self) -> bytes:
        return png(self._image)
