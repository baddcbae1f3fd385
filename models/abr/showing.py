"""What a model makes of responses, as rows, pictures and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from gearshift.models.abr.config import CLASS_NAMES, POINTS
from gearshift.models.abr.dataset import scaled_facts, scaled_signal
from gearshift.models.abr.network import Network
from gearshift.models.abr.responses import Numbers, ResponseOrigin, Responses
from gearshift.models.base import DataError, Picture, Prediction, Predictions
from gearshift.models.common.data_files import few
from gearshift.models.common.family import ENCODER
from gearshift.models.common.predictions import OPTION, DistinctNames, features_file
from gearshift.models.common.traces import INK, MARK, TraceRow, draw_traces

SHOWN = 4
"""Responses of the predictions during training."""
BATCH = 64
"""Responses of one forward pass."""
MAX_TRACES = 16
"""Traces in one picture."""
ROW = 44
TALL_ROW = 180
"""Heights of a row in pixels; the second of a picture of one."""
COLUMNS = (
    *("response", "class", "predicted class", "probability", "threshold dB"),
    *("predicted threshold", "wave V ms", "predicted wave V", "error µV"),
)
_HEADINGS = {
    "exists": "wave_v_probability",
    "latency": "v_latency (ms)",
    "amplitude": "v_amplitude (µV)",
    "class": "hear_loss",
    "probability": "hear_loss_probability",
    "threshold": "threshold (dB)",
}
Estimates = Mapping[str, NDArray]


@dataclass(frozen=True)
class TrainedOnResponses:
    """What the model was trained on, as far as predictions depend on it."""

    terms: tuple[str, ...]
    """The outputs that were trained."""
    species: str
    window_ms: float

    def check(self, origin: ResponseOrigin, path: Path) -> None:
        """Raise DataError unless responses of `origin` are of the kind in training."""
        if (origin.species, origin.window_ms) != (self.species, self.window_ms):
            kind = f"{self.species} responses of {self.window_ms:g} ms"
            problem = f"'{path}' has {origin.species} responses of {origin.window_ms:g} ms"
            raise DataError(
                f"{problem}, and the model was trained on {kind}", where=OPTION, allowed=kind
            )


def _inputs(task: Any, signal: NDArray, static: NDArray) -> list[torch.Tensor]:
    """The signal [batch, 1, 200] and the facts [batch, 4], scaled as in training."""
    scaled = scaled_signal(signal, task.statistics), scaled_facts(static, task.statistics)
    return [torch.from_numpy(x).to(task.context.device) for x in scaled]


@torch.no_grad()
def features(task: Any, model: Module, signal: NDArray, static: NDArray) -> Estimates:
    """The features [response, token, width] of an encoder, as `estimates`."""
    assert isinstance(model, Network)
    return {"features": model.encode(*_inputs(task, signal, static))[1].float().cpu().numpy()}


@torch.no_grad()
def estimates(task: Any, model: Module, signal: NDArray, static: NDArray) -> Estimates:
    """What the model makes of `signal` [response, 200] in µV with `static` [response, 4].

    The predicted signal in µV; class [response, class] and existence as probabilities; latency and
    amplitude are NaN where no wave V is predicted. Collective.
    """
    found = {term: x.float().cpu() for term, x in model(*_inputs(task, signal, static)).items()}
    found["signal"] = found["signal"][:, 0] * task.statistics.signal_rms
    if "class" in found:
        found["class"] = found["class"].double().softmax(-1)
    if "exists" in found:
        is_seen = found["exists"] >= 0
        found |= {t: found[t].where(is_seen, nan) for t in ("latency", "amplitude") if t in found}
        found["exists"] = found["exists"].double().sigmoid()
    return {term: x.numpy() for term, x in found.items()}


def build_predictions(
    task: Any, model: Module, numbers: Numbers, signal: NDArray, static: NDArray
) -> Predictions:
    """Predictions for the responses `numbers`, whose inputs are `signal` and `static`; collective."""
    found = estimates(task, model, signal, static)
    responses = task.records
    rows = []
    pictures = []
    for row, response in enumerate(numbers.tolist()):
        target = int(responses.target[response])
        known = {term: float(column[response]) for term, column in responses.labels.items()}
        guess = {term: float(x[row]) for term, x in found.items() if x.ndim == 1}
        shares = found["class"][row] if "class" in found else None
        values = [nan if shares is None else float(shares.max())]
        values += [x for t in ("threshold", "latency") for x in (known[t], guess.get(t, nan))]
        name = f"{responses.patient[response]}, {_level(responses, response)}"
        true = CLASS_NAMES[target] if target >= 0 else None
        best = None if shares is None else CLASS_NAMES[int(shares.argmax())]
        error = float(np.sqrt(np.square(found["signal"][row] - signal[row]).mean()))
        rows.append((name, true, best, *(x if np.isfinite(x) else None for x in values), error))
        traces = [(signal[row], INK), (found["signal"][row], MARK)]
        marks = (known["latency"], INK, "V"), (guess.get("latency", nan), MARK, "V?")
        caption = f"{name}: recorded (dark) and predicted (red), wave V marked"
        image = draw_responses([TraceRow("uV", traces, marks)], responses.origin.window_ms)
        pictures.append(Picture(f"response_{row + 1}", caption, image))
    return Predictions(COLUMNS, rows, pictures)


def _level(responses: Responses, response: int) -> str:
    level = responses.static[response, 1]
    return f"{level:g} dB" if np.isfinite(level) else ""


def level_series(responses: Responses, index: Numbers) -> list[Picture]:
    """Of the responses `index`, those of the patient with the most and, if known, of another class."""
    pictures = list[Picture]()
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
        pictures.append(Picture(f"responses-{len(seen)}", caption, _draw(responses, of_patient)))
    return pictures


def _draw(responses: Responses, index: Numbers, found: Estimates | None = None) -> bytes:
    """The PNG of responses, the highest level first, with waves V; `found` (red): predictions."""
    levels = np.nan_to_num(responses.static[index, 1], nan=-np.inf)
    rows = []
    for n in np.argsort(-levels, kind="stable")[:MAX_TRACES]:
        traces = [(responses.signal[index[n]], INK)]
        latency = responses.labels["latency"][index[n]]
        text = "V"
        if found is not None:
            traces.append((found["signal"][n], MARK))
            latency = found["latency"][n] if "latency" in found else nan
            text = "V?"
        rows.append(TraceRow(_level(responses, index[n]), traces, [(float(latency), MARK, text)]))
    return draw_responses(rows, responses.origin.window_ms)


def draw_responses(rows: Sequence[TraceRow], window_ms: float) -> bytes:
    """The PNG of responses on one scale; the marks of `rows` are in ms."""
    # A quantile: a few traces with muscle artifacts must not flatten all others.
    traces = [trace for row in rows for trace, _ in row.traces]
    largest = float(np.quantile(abs(np.asarray(traces, np.float64)), 0.995))
    ticks = [(ms / window_ms, f"{ms} ms") for ms in range(int(window_ms) + 1)]
    height = TALL_ROW if len(rows) == 1 else ROW
    shown = [
        TraceRow(n, t, [(ms / window_ms, ink, text) for ms, ink, text in marks])
        for n, t, marks in rows
    ]
    return draw_traces(shown, ticks, height, 0.8 * height / (largest or 1.0))


def predict(task: Any, model: Module, responses: Responses) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file.

    Of an encoder, their features. The last prediction has no file: the count of responses that are
    left out, and notes.
    """
    names = DistinctNames()
    groups: dict[str, list[int]] = {}
    for number, patient in enumerate(responses.patient.tolist()):
        groups.setdefault(patient, []).append(number)
    compute = features if task.stage == ENCODER else estimates
    for group, numbers in groups.items():
        index = np.array(numbers)
        name = names.of(group)
        parts = (index[at : at + BATCH] for at in range(0, len(index), BATCH))
        batches = [compute(task, model, responses.signal[n], responses.static[n]) for n in parts]
        found = {term: np.concatenate([batch[term] for batch in batches]) for term in batches[0]}
        if "features" in found:
            items = [responses.where[n] for n in index]
            more = {"intensity": responses.static[index, 1]}
            yield features_file(name, group, items, found["features"], more=more)
            continue
        lines, table = _table(responses, index, found)
        files = {".csv": table, ".png": _draw(responses, index, found)}
        yield Prediction(name, "\n".join([group, *lines]), files)
    notes = [f"left out: {name} {count}" for name, count in responses.reading.left_out.items()]
    if notes := [*notes, *few(responses.reading.notes)]:
        yield Prediction(names.of("notes"), "\n".join(notes))


def _table(responses: Responses, index: Numbers, found: Estimates) -> tuple[list[str], bytes]:
    """A line of text and a row of a CSV table for each response."""
    columns = {term: x for term, x in found.items() if term in _HEADINGS}
    if "class" in found:
        columns["class"] = np.array(CLASS_NAMES)[found["class"].argmax(-1)]
        columns["probability"] = found["class"].max(-1)
    columns = {term: columns[term] for term in _HEADINGS if term in columns}
    file = io.StringIO(newline="")
    lines = []
    writer = csv.writer(file, lineterminator="\n")
    points = [str(point) for point in range(1, POINTS + 1)]
    writer.writerow(["response", "patient_id", "intensity", *map(_HEADINGS.get, columns), *points])
    for row, response in enumerate(index):
        cells = [x[row] if term == "class" else _number(x[row]) for term, x in columns.items()]
        level = responses.static[response, 1]
        where = responses.where[response]
        patient = str(responses.patient[response]).removeprefix("patient ")
        writer.writerow(
            [where, patient, _number(level), *cells, *map(_number, found["signal"][row])]
        )
        values = zip((_HEADINGS[term] for term in columns), cells, strict=True)
        shown = ", ".join(f"{name} {cell}" for name, cell in values if cell)
        lines.append(f"  {_level(responses, response) or where}: {shown or 'reconstructed'}")
    return lines, file.getvalue().encode()


def _number(x: float) -> str:
    return f"{x:.6g}" if np.isfinite(x) else ""
