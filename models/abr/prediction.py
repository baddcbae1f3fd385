"""Predictions for responses without labels: tables and pictures, or features of an encoder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from models.abr.config import CLASS_NAMES, POINTS
from models.abr.dataset import scaled_facts, scaled_signal
from models.abr.network import TraceEncoder
from models.abr.preview import Trace, draw_series
from models.abr.readers.files import Unlabeled
from models.abr.responses import STATIC_NAMES, ResponseOrigin, ResponseRow, Statistics
from models.base import DataError, Prediction
from models.common.data_files import few
from models.common.predictions import OPTION, DistinctNames, features_file

BATCH = 64
"""Responses of one forward pass."""
Outputs = Mapping[str, NDArray[np.float32]]
"""The outputs of the model for one response, by term."""
_HEADINGS = {
    "exists": ("wave_v_probability",),
    "latency": ("v_latency (ms)",),
    "amplitude": ("v_amplitude (µV)",),
    "class": ("hear_loss", "hear_loss_probability"),
    "threshold": ("threshold (dB)",),
}


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
            raise DataError(
                f"'{path}' has {origin.species} responses of {origin.window_ms:g} ms, and the "
                f"model was trained on {self.species} responses of {self.window_ms:g} ms",
                where=OPTION,
                allowed=f"{self.species} responses of {self.window_ms:g} ms",
            )


def predict(
    model: Module, unlabeled: Unlabeled, statistics: Statistics, device: torch.device
) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file.

    The last predictions have no files: the count of responses that are left out, and notes.
    """
    names = DistinctNames()
    for group, rows in _groups(unlabeled).items():
        outputs = [
            output for part in _parts(rows) for output in _outputs(model, part, statistics, device)
        ]
        lines = [_line(row, output) for row, output in zip(rows, outputs, strict=True)]
        files = {
            ".csv": _table(rows, outputs),
            ".png": draw_series(
                [_trace(row, output) for row, output in zip(rows, outputs, strict=True)],
                unlabeled.origin.window_ms,
            ),
        }
        yield Prediction(names.of(group), "\n".join((group, *lines)), files)
    yield from _remarks(unlabeled, names)


@torch.no_grad()
def features(
    model: Module, unlabeled: Unlabeled, statistics: Statistics, device: torch.device
) -> Iterator[Prediction]:
    """The features of the responses of each patient or file; then as `predict`."""
    assert isinstance(model, TraceEncoder)
    names = DistinctNames()
    for group, rows in _groups(unlabeled).items():
        tokens = [
            model.encode(*_inputs(part, statistics, device))[1].float().cpu().numpy()
            for part in _parts(rows)
        ]
        more = {"intensity": np.array([row.level for row in rows], dtype=np.float32)}
        items = [row.where for row in rows]
        yield features_file(names.of(group), group, items, np.concatenate(tokens), more=more)
    yield from _remarks(unlabeled, names)


def _groups(unlabeled: Unlabeled) -> dict[str, list[ResponseRow]]:
    groups: dict[str, list[ResponseRow]] = {}
    for row in unlabeled.rows:
        groups.setdefault(row.patient, []).append(row)
    return groups


def _parts(rows: Sequence[ResponseRow]) -> list[Sequence[ResponseRow]]:
    return [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]


def _remarks(unlabeled: Unlabeled, names: DistinctNames) -> Iterator[Prediction]:
    if unlabeled.left_out:
        counts = ", ".join(f"{name} {count}" for name, count in unlabeled.left_out.items())
        yield Prediction(names.of("left-out"), f"left out: {counts}")
    if unlabeled.notes:
        yield Prediction(
            names.of("notes"), "\n".join(f"note: {note}" for note in few(unlabeled.notes))
        )


@torch.no_grad()
def _outputs(
    model: Module, rows: Sequence[ResponseRow], statistics: Statistics, device: torch.device
) -> list[Outputs]:
    """The outputs for each of `rows`; the signal in µV."""
    predicted = model(*_inputs(rows, statistics, device))
    columns = {term: x.float().cpu().numpy() for term, x in predicted.items()}
    columns["signal"] = columns["signal"][:, 0] * np.float32(statistics.signal_rms)
    return [{term: x[row] for term, x in columns.items()} for row in range(len(rows))]


def _inputs(
    rows: Sequence[ResponseRow], statistics: Statistics, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The signal [batch, 1, time] and the facts [batch, 4] of `rows`, scaled as in training."""
    signal = np.stack([scaled_signal(row.signal, statistics) for row in rows])
    static = [np.array([getattr(row, name) for name in STATIC_NAMES]) for row in rows]
    facts = np.stack([scaled_facts(values, statistics) for values in static])
    return torch.from_numpy(signal).to(device), torch.from_numpy(facts).to(device)


def _values(outputs: Outputs) -> dict[str, tuple[str | float, ...]]:
    """The cells of each term but the signal; NaN where no wave V is predicted."""
    cells: dict[str, tuple[str | float, ...]] = {}
    has_wave = outputs.get("exists", 0.0) >= 0
    for term in _HEADINGS:
        if term not in outputs:
            continue
        if term == "class":
            shares = _softmax(outputs["class"])
            cells[term] = (CLASS_NAMES[int(shares.argmax())], float(shares.max()))
        elif term == "exists":
            cells[term] = (float(1 / (1 + np.exp(-np.float64(outputs["exists"])))),)
        else:
            is_known = term == "threshold" or has_wave
            cells[term] = (float(outputs[term]) if is_known else nan,)
    return cells


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _table(rows: Sequence[ResponseRow], outputs: Sequence[Outputs]) -> bytes:
    """A row for each response, with the columns that the format of tables has too."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    heads = [head for term in _values(outputs[0]) for head in _HEADINGS[term]]
    points = [str(point) for point in range(1, POINTS + 1)]
    writer.writerow(["response", "patient_id", "intensity", *heads, *points])
    for row, output in zip(rows, outputs, strict=True):
        patient = row.patient.removeprefix("patient ")
        cells = [cell for term in _values(output).values() for cell in term]
        signal = output["signal"].tolist()
        writer.writerow(
            [row.where, patient, *map(_cell, (row.level, *cells)), *(f"{x:.6g}" for x in signal)]
        )
    return file.getvalue().encode()


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if np.isfinite(value) else ""


def _line(row: ResponseRow, outputs: Outputs) -> str:
    cells, parts = _values(outputs), []
    if "class" in cells:
        name, share = cells["class"]
        parts.append(f"{name} ({share:.0%})")
    if "threshold" in cells:
        parts.append(f"threshold {cells['threshold'][0]:.0f} dB")
    parts += _wave(cells)
    level = f"{row.level:g} dB" if np.isfinite(row.level) else row.where
    return f"  {level}: {', '.join(parts) or 'reconstructed'}"


def _wave(cells: Mapping[str, tuple[str | float, ...]]) -> list[str]:
    """Wave V as text; empty: no output is about it."""
    if "exists" in cells and float(cells["exists"][0]) < 0.5:
        return ["no wave V"]
    values = [
        f"{cells[term][0]:.3g} {unit}"
        for term, unit in (("latency", "ms"), ("amplitude", "µV"))
        if term in cells
    ]
    return [" ".join(("wave V", *values))] if values or "exists" in cells else []


def _trace(row: ResponseRow, outputs: Outputs) -> Trace:
    latency = _values(outputs).get("latency", (nan,))[0]
    name = f"{row.level:g} dB" if np.isfinite(row.level) else ""
    return Trace(name, row.level, row.signal, outputs["signal"], float(latency))
