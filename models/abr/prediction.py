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
from models.abr.network import Network
from models.abr.preview import draw_responses, highest
from models.abr.readers.files import Unlabeled
from models.abr.responses import STATIC_NAMES, ResponseOrigin, ResponseRow, Statistics
from models.base import DataError, Prediction
from models.common.data_files import few
from models.common.predictions import OPTION, DistinctNames, features_file
from models.common.traces import INK, MARK, TraceRow

BATCH = 64
"""Responses of one forward pass."""
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
    model: Module, unlabeled: Unlabeled, statistics: Statistics, device: torch.device, *, is_encoder: bool
) -> Iterator[Prediction]:
    """A table (CSV) and a picture for the responses of each patient or file.

    Of an encoder, their features. The last predictions have no files: the count of responses that
    are left out, and notes.
    """
    names = DistinctNames()
    groups: dict[str, list[ResponseRow]] = {}
    for row in unlabeled.rows:
        groups.setdefault(row.patient, []).append(row)
    for group, rows in groups.items():
        parts = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        inputs = [_inputs(part, statistics, device) for part in parts]
        name = names.of(group)
        if is_encoder:
            yield _features(model, inputs, rows, name, group)
            continue
        cells, signals = _outputs(model, inputs, statistics)
        pairs = list(zip(rows, cells, strict=True))
        lines = [group, *(_line(row, values) for row, values in pairs)]
        picture = _draw(rows, cells, signals, unlabeled.origin.window_ms)
        files = {".csv": _table(rows, cells, signals), ".png": picture}
        yield Prediction(name, "\n".join(lines), files)
    if unlabeled.left_out:
        counts = ", ".join(f"{name} {count}" for name, count in unlabeled.left_out.items())
        yield Prediction(names.of("left-out"), f"left out: {counts}")
    if unlabeled.notes:
        notes = [f"note: {note}" for note in few(unlabeled.notes)]
        yield Prediction(names.of("notes"), "\n".join(notes))


Inputs = tuple[torch.Tensor, torch.Tensor]
Cells = Mapping[str, tuple[str | float, ...]]
"""The cells of each output of a response but the signal; NaN where no wave V is predicted."""


def _inputs(rows: Sequence[ResponseRow], statistics: Statistics, device: torch.device) -> Inputs:
    """The signal [batch, 1, time] and the facts [batch, 4] of `rows`, scaled as in training."""
    signal = np.stack([scaled_signal(row.signal, statistics) for row in rows])
    static = [np.array([getattr(row, name) for name in STATIC_NAMES]) for row in rows]
    facts = np.stack([scaled_facts(values, statistics) for values in static])
    return torch.from_numpy(signal).to(device), torch.from_numpy(facts).to(device)


@torch.no_grad()
def _features(
    model: Module, inputs: Sequence[Inputs], rows: Sequence[ResponseRow], name: str, title: str
) -> Prediction:
    assert isinstance(model, Network)
    tokens = [model.encode(*given)[1].float().cpu().numpy() for given in inputs]
    more = {"intensity": np.array([row.level for row in rows], dtype=np.float32)}
    items = [row.where for row in rows]
    return features_file(name, title, items, np.concatenate(tokens), more=more)


@torch.no_grad()
def _outputs(
    model: Module, inputs: Sequence[Inputs], statistics: Statistics
) -> tuple[list[Cells], NDArray[np.float32]]:
    """The cells of each response, and their predicted signals [response, 200] in µV."""
    batches = [model(*given) for given in inputs]
    columns = {
        term: torch.cat([batch[term].float().cpu() for batch in batches]).numpy() for term in batches[0]
    }
    signals = columns["signal"][:, 0] * np.float32(statistics.signal_rms)
    rows: list[Cells] = []
    for row in range(len(signals)):
        outputs = {term: columns[term][row] for term in _HEADINGS if term in columns}
        has_wave = outputs.get("exists", 0.0) >= 0
        cells: dict[str, tuple[str | float, ...]] = {}
        for term, output in outputs.items():
            if term == "class":
                powers = np.exp(output.astype(np.float64) - output.max())
                shares = powers / powers.sum()
                cells[term] = (CLASS_NAMES[int(shares.argmax())], float(shares.max()))
            elif term == "exists":
                cells[term] = (float(1 / (1 + np.exp(-np.float64(output)))),)
            else:
                cells[term] = (float(output) if term == "threshold" or has_wave else nan,)
        rows.append(cells)
    return rows, signals


def _table(rows: Sequence[ResponseRow], cells: Sequence[Cells], signals: NDArray[np.float32]) -> bytes:
    """A row for each response, with the columns that the format of tables has too."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    heads = [head for term in cells[0] for head in _HEADINGS[term]]
    points = [str(point) for point in range(1, POINTS + 1)]
    writer.writerow(["response", "patient_id", "intensity", *heads, *points])
    for row, values, signal in zip(rows, cells, signals.tolist(), strict=True):
        patient = row.patient.removeprefix("patient ")
        numbers = [row.level, *(value for term in values.values() for value in term)]
        texts = [x if isinstance(x, str) else f"{x:.6g}" if np.isfinite(x) else "" for x in numbers]
        writer.writerow([row.where, patient, *texts, *(f"{x:.6g}" for x in signal)])
    return file.getvalue().encode()


def _line(row: ResponseRow, cells: Cells) -> str:
    parts = []
    if "class" in cells:
        name, share = cells["class"]
        parts.append(f"{name} ({share:.0%})")
    if "threshold" in cells:
        parts.append(f"threshold {cells['threshold'][0]:.0f} dB")
    units = {"latency": "ms", "amplitude": "µV"}
    wave = [f"{cells[term][0]:.3g} {unit}" for term, unit in units.items() if term in cells]
    if "exists" in cells and float(cells["exists"][0]) < 0.5:
        parts.append("no wave V")
    elif wave or "exists" in cells:
        parts.append(" ".join(("wave V", *wave)))
    level = f"{row.level:g} dB" if np.isfinite(row.level) else row.where
    return f"  {level}: {', '.join(parts) or 'reconstructed'}"


def _draw(
    rows: Sequence[ResponseRow], cells: Sequence[Cells], signals: NDArray[np.float32], window_ms: float
) -> bytes:
    """The PNG of responses (dark) with their predictions (red), highest level first."""
    shown = []
    for n in highest(np.array([row.level for row in rows])):
        name = f"{rows[n].level:g} dB" if np.isfinite(rows[n].level) else ""
        mark = float(cells[n].get("latency", (nan,))[0]) / window_ms, MARK, "V?"
        shown.append(TraceRow(name, [(rows[n].signal, INK), (signals[n], MARK)], [mark]))
    return draw_responses(shown, window_ms)
