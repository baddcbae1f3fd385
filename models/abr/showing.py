"""What a model makes of responses, as rows, pictures and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from math import nan
from statistics import mode
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from gearshift.models.abr.config import CLASS_NAMES, UNKNOWN
from gearshift.models.abr.dataset import scaled_facts, scaled_signal
from gearshift.models.abr.responses import Numbers, Responses
from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_reports import few
from gearshift.models.common.family import ENCODER, spread_positions
from gearshift.models.common.predictions import DistinctNames, features_file, few_samples, placed
from gearshift.models.common.traces import INK, MARK, TraceRow, draw_traces

SHOWN = 4
"""Responses of the predictions during training."""
BATCH = 256
"""Responses of one table, by one forward pass."""
MAX_TRACES = 16
"""Responses in one picture."""
ROW = 80
"""Height of a row in pixels."""
LABEL = 22
"""Characters of its name."""
_HEADINGS = {
    "exists": "wave_v_probability",
    "latency": "v_latency (ms)",
    "amplitude": "v_amplitude (µV)",
    "class": "hear_loss",
    "probability": "hear_loss_probability",
    "threshold": "threshold (dB)",
}
Estimates = dict[str, NDArray]
"""By output of the model, its values; class and probability: the likeliest class."""


def estimates(
    task: Any,
    outputs: Mapping[str, torch.Tensor],
) -> Estimates:
    """What the `outputs` of a model say.

    The predicted signal in µV, and existence as a probability; latency and amplitude are NaN where
    no wave V is predicted.
    """
    values = {term: output.float().cpu() for term, output in outputs.items()}
    values["signal"] = values["signal"][:, 0] * task.statistics.signal_rms
    if "exists" in values:
        values["exists"] = values["exists"].sigmoid()
    for term in values.keys() & {"latency", "amplitude"}:
        # A wave that is not there has no latency.
        values[term] = values[term].where(values["exists"] >= 0.5, nan)
    if "class" in values:
        values["probability"], values["class"] = values["class"].softmax(-1).max(-1)
    columns = {term: column.numpy() for term, column in values.items()}
    if "class" in columns:
        columns["class"] = np.array(CLASS_NAMES)[columns["class"]]
    return columns


def build_predictions(
    task: Any,
    model: Module,
) -> Predictions:
    """Predictions for a few validation responses; collective."""
    split = task.data("val")
    positions = spread_positions(len(split), SHOWN)
    batch = placed(task.collate(few_samples(split, SHOWN)), task.context.device)
    predicted = estimates(task, model(batch["signal"], batch["static"]))
    responses: Responses = task.records
    index = split.numbers[positions]
    targets = responses.target[index]
    columns = {
        "response": [_name(responses, n) for n in index],
        **_columns(predicted),
        "true class": [CLASS_NAMES[target] if target >= 0 else UNKNOWN for target in targets],
    }
    for term, label in responses.labels.items():
        columns[f"true {term}"] = label[index]
    # NaN is not equal to itself.
    rows = []
    for cells in zip(*columns.values(), strict=True):
        rows.append([cell if cell == cell else None for cell in cells])
    # In a noise control the input is that of another response.
    image = draw_responses(responses, split.given[positions], predicted)
    caption = "recorded (dark) and predicted (red), wave V marked"
    return Predictions(tuple(columns), rows, [Picture("responses", caption, image)])


def _columns(predicted: Estimates) -> Estimates:
    """What is `predicted` for responses, but the signal, by heading."""
    return {heading: predicted[term] for term, heading in _HEADINGS.items() if term in predicted}


def _name(
    responses: Responses,
    response: int,
) -> str:
    return f"{responses.patient[response]}, {responses.static[response, 1]:g} dB"


def level_series(
    responses: Responses,
    index: Numbers,
) -> list[Picture]:
    """Of the responses `index`, those of the patient with the most."""
    patient = mode(responses.patient[index].tolist())
    image = draw_responses(responses, index[responses.patient[index] == patient], {})
    return [Picture("responses", f"{patient}: responses by level, waves V marked", image)]


def draw_responses(
    responses: Responses,
    index: Numbers,
    predicted: Estimates,
) -> bytes:
    """The PNG of the responses `index` with their waves V, the highest level first, on one scale.

    What is `predicted` for them is red.
    """
    window_ms = responses.origin.window_ms
    rows = []
    for n in np.argsort(-responses.static[index, 1], kind="stable")[:MAX_TRACES]:
        response = index[n]
        traces = [(responses.signal[response], INK)]
        marks = [(responses.labels["latency"][response] / window_ms, INK, "V")]
        if "signal" in predicted:
            traces.append((predicted["signal"][n], MARK))
        if "latency" in predicted:
            marks.append((predicted["latency"][n] / window_ms, MARK, "V?"))
        rows.append(TraceRow(_name(responses, response)[-LABEL:], traces, marks))
    # A quantile: a few traces with muscle artifacts must not flatten all others.
    largest = float(np.quantile(np.abs(responses.signal[index]), 0.995))
    ticks = [(ms / window_ms, f"{ms} ms") for ms in range(int(window_ms) + 1)]
    return draw_traces(rows, ticks, ROW, 0.5 * ROW / (largest or 1.0))


def predict(
    task: Any,
    model: Module,
    responses: Responses,
) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file; several for many.

    Of an encoder, their features. The last prediction has no file: the count of responses that are
    left out, and notes.
    """
    names = DistinctNames()
    groups: dict[str, list[int]] = {}
    for number, patient in enumerate(responses.patient.tolist()):
        groups.setdefault(patient, []).append(number)
    for group, numbers in groups.items():
        for index in np.split(np.array(numbers), range(BATCH, len(numbers), BATCH)):
            yield _prediction(task, model, responses, index, names.of(group))
    notes = [f"left out: {reason} {n}" for reason, n in responses.reading.left_out.items()]
    notes += few(responses.reading.notes)
    if notes:
        yield Prediction(names.of("notes"), "\n".join(notes))


@torch.no_grad()
def _prediction(
    task: Any,
    model: Any,
    responses: Responses,
    index: Numbers,
    name: str,
) -> Prediction:
    signal = scaled_signal(responses.signal[index], task.statistics).to(task.context.device)
    static = scaled_facts(responses.static[index], task.statistics).to(task.context.device)
    group = responses.patient[index[0]]
    if task.stage == ENCODER:
        features = model.encode(signal, static)[1].float().cpu().numpy()
        where = [responses.where[n] for n in index]
        level = {"intensity": responses.static[index, 1]}
        return features_file(name, group, where, features, more=level)
    predicted = estimates(task, model(signal, static))
    lines, table = _table(responses, index, predicted)
    image = draw_responses(responses, index, predicted)
    return Prediction(name, "\n".join([group, *lines]), {".csv": table, ".png": image})


def _table(
    responses: Responses,
    index: Numbers,
    predicted: Estimates,
) -> tuple[list[str], bytes]:
    """A line of text and a row of a CSV table for each response."""
    columns = {heading: _texts(column) for heading, column in _columns(predicted).items()}
    table = {
        "response": [responses.where[n] for n in index],
        "patient_id": [responses.patient[n].removeprefix("patient ") for n in index],
        "intensity": _texts(responses.static[index, 1]),
        **columns,
        **dict(enumerate(_texts(predicted["signal"]).T, start=1)),
    }
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))

    lines = []
    for n, response in enumerate(index):
        # For the terminal, what is unknown is left out, and so is the signal.
        cells = [f"{heading} {column[n]}" for heading, column in columns.items() if column[n]]
        lines.append(f"  {_name(responses, response)}: {', '.join(cells) or 'reconstructed'}")
    return lines, file.getvalue().encode()


def _texts(column: NDArray) -> NDArray:
    """The cells of a table; empty for NaN."""
    if column.dtype.kind == "U":
        return column
    return np.char.replace(np.char.mod("%.6g", column), "nan", "")
