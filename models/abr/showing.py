"""What a model makes of responses, as rows, pictures and files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from gearshift.models.abr.config import CLASS_NAMES, POINTS
from gearshift.models.abr.dataset import scaled_facts, scaled_signal
from gearshift.models.abr.responses import Numbers, Responses
from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_reports import few
from gearshift.models.common.family import ENCODER, spread_positions
from gearshift.models.common.predictions import DistinctNames, features_file, few_samples, placed
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
_HEADINGS = {
    "exists": "wave_v_probability",
    "latency": "v_latency (ms)",
    "amplitude": "v_amplitude (µV)",
    "class": "hear_loss",
    "probability": "hear_loss_probability",
    "threshold": "threshold (dB)",
}
Estimates = Mapping[str, NDArray]
"""By output of the model, its values; class and probability: the likeliest class."""


@dataclass(frozen=True)
class TrainedOnResponses:
    """What the model was trained on, as far as predictions depend on it."""

    terms: tuple[str, ...]
    """The outputs that were trained."""
    species: str
    window_ms: float


def estimates(
    task: Any,
    outputs: Mapping[str, torch.Tensor],
) -> Estimates:
    """What the `outputs` of a model say.

    The predicted signal in µV, and existence as a probability; latency and amplitude are NaN where
    no wave V is predicted.
    """
    values: dict[str, NDArray] = {}
    for term, output in outputs.items():
        x = output.float().cpu()
        if term == "signal":
            x = x[:, 0] * task.statistics.signal_rms
        elif term == "class":
            x, likeliest = x.double().softmax(-1).max(-1)
            values["probability"] = x.numpy()
            values["class"] = np.array(CLASS_NAMES)[likeliest.numpy()]
            continue
        elif term == "exists":
            x = x.double().sigmoid()
        elif term in ("latency", "amplitude") and "exists" in outputs:
            # A wave that is not there has no latency.
            x = x.where(outputs["exists"].cpu() >= 0, nan)
        values[term] = x.numpy()
    return values


def build_predictions(
    task: Any,
    model: Module,
) -> Predictions:
    """Predictions for a few validation responses; collective."""
    split = task.data("val")
    numbers = split.numbers[spread_positions(len(split), SHOWN)]
    batch = placed(task.collate(few_samples(split, SHOWN)), task.context.device)
    signal = batch["signal"][:, 0].cpu().numpy() * task.statistics.signal_rms
    predicted = estimates(task, model(batch["signal"], batch["static"]))
    responses: Responses = task.records
    rows = []
    pictures = []
    for row, response in enumerate(numbers.tolist()):
        name = f"{responses.patient[response]}, {_level(responses, response)}"
        target = responses.target[response]
        error = predicted["signal"][row] - signal[row]
        rows.append(
            [
                name,
                CLASS_NAMES[target] if target >= 0 else None,
                _cell(predicted, "class", row),
                _cell(predicted, "probability", row),
                _cell(responses.labels, "threshold", response),
                _cell(predicted, "threshold", row),
                _cell(responses.labels, "latency", response),
                _cell(predicted, "latency", row),
                float(np.sqrt(np.square(error).mean())),
            ]
        )
        trace = _trace(responses, response, signal[row], predicted, row)
        image = _draw([trace], responses.origin.window_ms)
        caption = f"{name}: recorded (dark) and predicted (red), wave V marked"
        pictures.append(Picture(f"response_{row + 1}", caption, image))
    return Predictions(COLUMNS, rows, pictures)


def _cell(
    columns: Estimates,
    name: str,
    row: int,
) -> Any:
    """The value of a column; None: there is no such column, or no finite number."""
    if name not in columns:
        return None
    value = columns[name][row].item()
    return value if isinstance(value, str) or isfinite(value) else None


def _level(
    responses: Responses,
    response: int,
) -> str:
    level = responses.static[response, 1]
    if np.isfinite(level):
        return f"{level:g} dB"
    return ""


def level_series(
    responses: Responses,
    index: Numbers,
) -> list[Picture]:
    """Of the responses `index`, those of the patient with the most, and of one of another class."""
    pictures: dict[int, Picture] = {}
    for patient, _ in Counter(responses.patient[index].tolist()).most_common():
        of_patient = index[responses.patient[index] == patient]
        target = int(responses.target[of_patient[0]])
        # A second picture is worth it only for another class.
        if target in pictures or len(pictures) == 2:
            continue
        kind = CLASS_NAMES[target] if target >= 0 else "hearing loss unknown"
        pictures[target] = Picture(
            f"responses-{len(pictures) + 1}",
            f"{patient}, {kind}: responses by level, known waves V marked",
            _draw_levels(responses, of_patient, {}),
        )
    return list(pictures.values())


def _draw_levels(
    responses: Responses,
    index: Numbers,
    predicted: Estimates,
) -> bytes:
    """The PNG of the responses `index`, the highest level first."""
    levels = np.nan_to_num(responses.static[index, 1], nan=-np.inf)
    rows = []
    for n in np.argsort(-levels, kind="stable")[:MAX_TRACES]:
        rows.append(
            _trace(
                responses,
                index[n],
                responses.signal[index[n]],
                predicted,
                n,
            )
        )
    return _draw(rows, responses.origin.window_ms)


def _trace(
    responses: Responses,
    response: int,
    signal: NDArray,
    predicted: Estimates,
    row: int,
) -> TraceRow:
    """A response with its wave V; what is predicted for it, in `row`, is red."""
    window_ms = responses.origin.window_ms
    traces = [(signal, INK)]
    marks = [(float(responses.labels["latency"][response]) / window_ms, INK, "V")]
    if "signal" in predicted:
        traces.append((predicted["signal"][row], MARK))
    if "latency" in predicted:
        marks.append((float(predicted["latency"][row]) / window_ms, MARK, "V?"))
    return TraceRow(_level(responses, response), traces, marks)


def _draw(
    rows: Sequence[TraceRow],
    window_ms: float,
) -> bytes:
    """The PNG of responses on one scale."""
    values: list[NDArray] = []
    for row in rows:
        values += [trace for trace, _ in row.traces]
    # A quantile: a few traces with muscle artifacts must not flatten all others.
    largest = float(np.quantile(np.abs(values), 0.995))
    height = TALL_ROW if len(rows) == 1 else ROW
    ticks = [(ms / window_ms, f"{ms} ms") for ms in range(int(window_ms) + 1)]
    return draw_traces(
        rows,
        ticks,
        height,
        0.8 * height / (largest or 1.0),
    )


def predict(
    task: Any,
    model: Module,
    responses: Responses,
) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file.

    Of an encoder, their features. The last prediction has no file: the count of responses that are
    left out, and notes.
    """
    names = DistinctNames()
    groups: dict[str, list[int]] = {}
    for number, patient in enumerate(responses.patient.tolist()):
        groups.setdefault(patient, []).append(number)
    for group, numbers in groups.items():
        index = np.array(numbers)
        name = names.of(group)
        predicted = _estimated(task, model, responses, index)
        # An encoder has no estimates.
        if "features" in predicted:
            yield features_file(
                name,
                group,
                [responses.where[n] for n in numbers],
                predicted["features"],
                more={"intensity": responses.static[index, 1]},
            )
            continue
        lines, table = _table(responses, index, predicted)
        yield Prediction(
            name,
            "\n".join([group, *lines]),
            {".csv": table, ".png": _draw_levels(responses, index, predicted)},
        )

    notes = [f"left out: {reason} {n}" for reason, n in responses.reading.left_out.items()]
    notes += few(responses.reading.notes)
    if notes:
        yield Prediction(names.of("notes"), "\n".join(notes))


@torch.no_grad()
def _estimated(
    task: Any,
    model: Any,
    responses: Responses,
    index: Numbers,
) -> Estimates:
    """Of the responses `index` the features by an encoder, or else estimates."""
    batches: list[Estimates] = []
    for part in np.split(index, range(BATCH, len(index), BATCH)):
        signal = scaled_signal(responses.signal[part], task.statistics)
        static = scaled_facts(responses.static[part], task.statistics)
        inputs = [torch.from_numpy(array).to(task.context.device) for array in (signal, static)]
        if task.stage == ENCODER:
            batches.append({"features": model.encode(*inputs)[1].float().cpu().numpy()})
        else:
            batches.append(estimates(task, model(*inputs)))
    whole = {}
    for term in batches[0]:
        whole[term] = np.concatenate([batch[term] for batch in batches])
    return whole


def _table(
    responses: Responses,
    index: Numbers,
    predicted: Estimates,
) -> tuple[list[str], bytes]:
    """A line of text and a row of a CSV table for each response."""
    columns = {}
    for term, heading in _HEADINGS.items():
        if term in predicted:
            columns[heading] = list(map(_text, predicted[term]))
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["response", "patient_id", "intensity", *columns, *range(1, POINTS + 1)])
    lines = []
    for row, response in enumerate(index):
        cells = {heading: column[row] for heading, column in columns.items()}
        where = responses.where[response]
        patient = responses.patient[response].removeprefix("patient ")
        level = _text(responses.static[response, 1])
        writer.writerow(
            [where, patient, level, *cells.values(), *map(_text, predicted["signal"][row])]
        )

        # For the terminal, what is unknown is left out, and so is the signal.
        summary = ", ".join(f"{heading} {cell}" for heading, cell in cells.items() if cell)
        lines.append(f"  {_level(responses, response) or where}: {summary or 'reconstructed'}")
    return lines, file.getvalue().encode()


def _text(value: Any) -> str:
    """A cell of a table; empty for a number that is not finite."""
    if isinstance(value, str):
        return value
    if np.isfinite(value):
        return f"{value:.6g}"
    return ""
