"""What a model makes of responses, as rows, pictures and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from gearshift.models.abr.config import CLASS_NAMES, UNKNOWN
from gearshift.models.abr.dataset import scaled_facts, scaled_signal
from gearshift.models.abr.responses import Responses
from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_reports import few
from gearshift.models.common.family import ENCODER, Numbers, spread_positions
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
LATENCY = "v_latency (ms)"
Estimates = dict[str, NDArray]
"""By heading of a table, what is estimated; and `signal`."""


def estimates(
    task: Any,
    outputs: Mapping[str, torch.Tensor],
) -> Estimates:
    """What the `outputs` of a model say.

    The predicted signal in µV, and existence as a probability; latency and amplitude are NaN where
    no wave V is predicted.
    """
    values = {term: output.float().cpu() for term, output in outputs.items()}
    predicted = {"signal": values["signal"][:, 0] * task.statistics.signal_rms}
    if "exists" in values:
        predicted["wave_v_probability"] = values["exists"].sigmoid()
    for term, heading in (("latency", LATENCY), ("amplitude", "v_amplitude (µV)")):
        if term in values:
            # A wave that is not there has no latency.
            predicted[heading] = values[term].where(values["exists"] >= 0, nan)
    if "threshold" in values:
        predicted["threshold (dB)"] = values["threshold"]
    columns = {heading: column.numpy() for heading, column in predicted.items()}
    if "class" in values:
        share, likeliest = values["class"].softmax(-1).max(-1)
        columns["hear_loss"] = np.array(CLASS_NAMES)[likeliest.numpy()]
        columns["hear_loss_probability"] = share.numpy()
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
    columns = _table(responses, index, predicted)
    for term, label in responses.labels.items():
        columns[f"true {term}"] = _texts(label[index])
    targets = responses.target[index]
    columns["true class"] = [CLASS_NAMES[n] if n >= 0 else UNKNOWN for n in targets]
    # In a noise control the input is that of another response.
    image = draw_responses(responses, split.given[positions], predicted)
    picture = Picture("responses", "recorded (dark) and predicted (red), wave V marked", image)
    return Predictions(tuple(columns), [*zip(*columns.values(), strict=True)], [picture])


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
        if LATENCY in predicted:
            marks.append((predicted[LATENCY][n] / window_ms, MARK, "V?"))
        name = f"{responses.patient[response]}, {responses.static[response, 1]:g} dB"
        rows.append(TraceRow(name[-LABEL:], traces, marks))
    # A quantile: a few traces with muscle artifacts must not flatten all others.
    largest = float(np.quantile(np.abs(responses.signal[index]), 0.995))
    ticks = [(ms / window_ms, f"{ms} ms") for ms in range(int(window_ms) + 1)]
    return draw_traces(
        rows,
        ticks,
        ROW,
        0.5 * ROW / (largest or 1.0),
    )


@torch.no_grad()
def predict(
    task: Any,
    model: Any,
    responses: Responses,
) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file; several for many.

    Of an encoder, their features. The last prediction has no file: the count of responses that are
    left out, and notes.
    """
    device = task.context.device
    names = DistinctNames()
    for group in dict.fromkeys(responses.patient.tolist()):
        numbers = np.flatnonzero(responses.patient == group)
        for index in np.split(numbers, range(BATCH, len(numbers), BATCH)):
            name = names.of(group)
            signal = scaled_signal(responses.signal[index], task.statistics).to(device)
            static = scaled_facts(responses.static[index], task.statistics).to(device)
            if task.stage == ENCODER:
                features = model.encode(signal, static)[1].float().cpu().numpy()
                where = [responses.where[n] for n in index]
                level = {"intensity": responses.static[index, 1]}
                yield features_file(
                    name,
                    group,
                    where,
                    features,
                    more=level,
                )
                continue
            predicted = estimates(task, model(signal, static))
            columns = _table(responses, index, predicted)
            text = "\n".join([group, *_lines(columns)])
            # In the file, the signal too.
            columns |= dict(enumerate(_texts(predicted["signal"]).T, start=1))
            files = {
                ".csv": _csv(columns),
                ".png": draw_responses(responses, index, predicted),
            }
            yield Prediction(name, text, files)
    notes = [f"left out: {reason} {n}" for reason, n in responses.reading.left_out.items()]
    notes += few(responses.reading.notes)
    if notes:
        yield Prediction(names.of("notes"), "\n".join(notes))


def _table(
    responses: Responses,
    index: Numbers,
    predicted: Estimates,
) -> dict[Any, Any]:
    """The cells of a table by heading, a row for each of the responses `index`."""
    columns = {
        "response": [responses.where[n] for n in index],
        "patient_id": [responses.patient[n].removeprefix("patient ") for n in index],
        "intensity": _texts(responses.static[index, 1]),
    }
    for heading, column in predicted.items():
        if heading != "signal":
            columns[heading] = _texts(column)
    return columns


def _texts(column: NDArray) -> Any:
    """The cells of a table; empty for NaN."""
    if column.dtype.kind == "U":
        return column
    return np.char.replace(np.char.mod("%.6g", column), "nan", "")


def _lines(columns: Mapping[Any, Sequence[str]]) -> Iterator[str]:
    """The rows of a table for the terminal, without what is unknown."""
    for row in zip(*columns.values(), strict=True):
        cells = [f"{heading} {cell}" for heading, cell in zip(columns, row, strict=True) if cell]
        yield f"  {', '.join(cells)}"


def _csv(columns: Mapping[Any, Sequence[str]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue().encode()
