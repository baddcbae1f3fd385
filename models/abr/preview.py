"""Text preview, predictions and pictures of responses."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from models.abr.config import CLASS_NAMES, CLASSES
from models.abr.dataset import ResponseSplit, collate
from models.abr.responses import Responses
from models.base import Picture, Predictions
from models.common import predictions
from models.common.predictions import few_samples, spread_positions
from models.common.traces import INK, MARK, TraceRow, draw_traces

PREVIEW_RESPONSES = 64
"""Responses of the text preview, spread over the validation split."""
BARS = "▁▂▃▄▅▆▇█"
BAR_COLUMNS = 66

SHOWN = 4
"""Responses of the predictions."""
UNKNOWN = "–"
COLUMNS = (
    *("response", "class", "predicted class", "probability", "threshold dB"),
    *("predicted threshold", "wave V ms", "predicted wave V", "error µV"),
)

MAX_TRACES = 16
"""Traces in one picture."""
ROW, TALL_ROW = 44, 180
"""Heights of a row in pixels; the second of a picture of one."""


def render_preview(model: Module, split: ResponseSplit, device: torch.device) -> str:
    """A response with its reconstruction, and the confusion matrix of the classes.

    One forward pass, the same on every rank. Collective.
    """
    batch = collate(few_samples(split, PREVIEW_RESPONSES))
    with predictions.evaluating(model):
        outputs = model(batch["signal"].to(device), batch["static"].to(device))
    true, guess = batch["signal"][0, 0], outputs["signal"][0, 0].float().cpu()
    text = _bars({"response": true, "reconstructed": guess})
    if "class" not in outputs:
        return text
    target, predicted = batch["target"], outputs["class"].argmax(-1).cpu()
    cells = (target * CLASSES + predicted)[target >= 0]
    counts = torch.bincount(cells, minlength=CLASSES**2).view(CLASSES, CLASSES).tolist()
    table = {"true, pred. →": CLASS_NAMES, **dict(zip(CLASS_NAMES, counts, strict=True))}
    rows = (f"{name:<14} " + " ".join(f"{cell:>13}" for cell in row) for name, row in table.items())
    return "\n".join([text, *rows])


def _bars(traces: dict[str, Tensor]) -> str:
    """Traces as lines of block characters on the scale of the first one."""
    first = next(iter(traces.values())).numpy()
    low, high = float(first.min()), float(first.max())
    points, lines = np.linspace(0, len(first) - 1, BAR_COLUMNS).astype(int), []
    for name, trace in traces.items():
        share = (trace.numpy()[points] - low) / max(high - low, 1e-9)
        levels = (share * len(BARS)).astype(int).clip(0, len(BARS) - 1)
        lines.append(f"{name:<14} {''.join(BARS[i] for i in levels)}")
    return "\n".join(lines)


def build_predictions(model: Module, split: ResponseSplit, device: torch.device) -> Predictions:
    """Predictions for a few responses spread over a split. One forward pass, collective."""
    batch = collate(few_samples(split, SHOWN))
    outputs = model(batch["signal"].to(device), batch["static"].to(device))
    outputs = {term: x.float().cpu() for term, x in outputs.items()}
    responses, rms = split.responses, np.float32(split.statistics.signal_rms)
    rows, pictures = [], []
    for row, index in enumerate(spread_positions(len(split), SHOWN)):
        response, target = int(split.index[index]), int(batch["target"][row])
        known = {term: float(column[response]) for term, column in responses.labels.items()}
        found = {term: float(x[row]) for term, x in outputs.items() if x.dim() == 1}
        if found.get("exists", 0.0) < 0:
            found["latency"] = nan  # no wave V is predicted
        name, guess, probability = _name(responses, response), UNKNOWN, nan
        if "class" in outputs:
            shares = outputs["class"][row].softmax(-1)
            guess, probability = CLASS_NAMES[int(shares.argmax())], float(shares.max())
        recorded = np.asarray(responses.signal[split.signal_of[index]], np.float32)
        predicted = outputs["signal"][row, 0].numpy() * rms
        pairs = [(known[term], found.get(term, nan)) for term in ("threshold", "latency")]
        numbers = (probability, *pairs[0], *pairs[1])
        cells = [x if np.isfinite(x) else UNKNOWN for x in numbers]
        error = float(np.sqrt(np.square(predicted - recorded).mean()))
        true = CLASS_NAMES[target] if target >= 0 else UNKNOWN
        rows.append((name, true, guess, *cells, error))
        caption = f"{name}: recorded (dark) and predicted (red), wave V marked"
        image = draw_comparison(recorded, predicted, pairs[1], responses.origin.window_ms)
        pictures.append(Picture(f"response_{row + 1}", caption, image))
    return Predictions(COLUMNS, rows, pictures)


def _name(responses: Responses, response: int) -> str:
    return f"{responses.patient[response]}, {_level(responses, response)}"


def _level(responses: Responses, response: int) -> str:
    level = responses.static[response, 1]
    return f"{level:g} dB" if np.isfinite(level) else UNKNOWN


def level_series(split: ResponseSplit) -> list[Picture]:
    """Pictures of the patient with the most responses and, if known, one of another class."""
    responses, pictures = split.responses, list[Picture]()
    index = np.unique(split.index)
    seen: set[int] = set()
    patients, counts = np.unique(responses.patient[index], return_counts=True)
    for patient in patients[np.argsort(-counts, kind="stable")]:
        of_patient = index[responses.patient[index] == patient]
        target = int(responses.target[of_patient[0]])
        if target in seen or len(pictures) == 2:
            continue
        seen.add(target)
        kind = CLASS_NAMES[target] if target >= 0 else "hearing loss unknown"
        caption = f"{patient}, {kind}: responses by level, known waves V marked"
        rows = []
        for n in highest(responses.static[of_patient, 1]):
            response = of_patient[n]
            latency = float(responses.labels["latency"][response])
            mark = latency / responses.origin.window_ms, MARK, "V"
            trace = responses.signal[response], INK
            rows.append(TraceRow(_level(responses, response), [trace], [mark]))
        image = draw_responses(rows, responses.origin.window_ms)
        pictures.append(Picture(f"responses-{len(seen)}", caption, image))
    return pictures


def highest(levels: NDArray[np.float32]) -> NDArray[np.int64]:
    """The indices of the highest `levels`, at most MAX_TRACES; NaN comes last."""
    return np.argsort(-np.nan_to_num(levels, nan=-np.inf), kind="stable")[:MAX_TRACES]


def draw_comparison(
    recorded: NDArray[np.float32],
    predicted: NDArray[np.float32],
    latencies: tuple[float, float],
    window_ms: float,
) -> bytes:
    """The PNG of a recorded (dark) and a predicted (red) response, both [point] in µV.

    Wave V is marked at `latencies`, recorded and predicted, in ms. NaN is not drawn.
    """
    true, guess = (latency / window_ms for latency in latencies)
    marks = (true, INK, "V"), (guess, MARK, "V?")
    row = TraceRow("uV", [(recorded, INK), (predicted, MARK)], marks)  # the font has no µ
    largest = 2 * float(max(abs(recorded).max(), np.nanmax(abs(predicted))))
    return draw_responses([row], window_ms, largest)


def draw_responses(rows: Sequence[TraceRow], window_ms: float, largest: float | None = None) -> bytes:
    """The PNG of responses on one scale; `largest`: the amplitude in µV that fills a row."""
    if largest is None:
        # A quantile: a few traces with muscle artifacts must not flatten all others.
        traces = [trace for row in rows for trace, _ in row.traces]
        largest = float(np.quantile(abs(np.asarray(traces, np.float64)), 0.995))
    ticks = [(ms / window_ms, f"{ms} ms") for ms in range(int(window_ms) + 1)]
    height = TALL_ROW if len(rows) == 1 else ROW
    return draw_traces(rows, ticks, height, 0.8 * height / (largest or 1.0))
