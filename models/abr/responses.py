"""Averaged responses with their labels, row by row and as columns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.abr.config import POINTS
from models.base import DataError
from models.common.data_files import BadRecords, OnBad

UNKNOWN_CLASS = -100
LABELS = ("exists", "latency", "amplitude", "threshold")
STATIC_NAMES = ("age", "level", "rate", "fmp")
_POSSIBLE = {
    "age": (0, 150, "years"),
    "level": (-50, 200, "dB"),
    "rate": (0, 10_000, "per second"),
    "fmp": (0, 1e9, "as a ratio of variances"),
    "latency": (0, 100, "ms"),
    "amplitude": (-1e6, 1e6, "µV"),
    "threshold": (-50, 200, "dB"),
}
"""Wide ranges: a value outside is a mistake in the file, not an unusual patient."""
_MOST_UV = 1e6
"""1 V; electrodes on the head never measure that."""


@dataclass(frozen=True)
class Row:
    """One averaged response; NaN: unknown."""

    patient: str
    """The patient or file, which stays in one split."""
    where: str
    """File and line or level, for messages."""
    signal: NDArray[np.float32]
    """[200], in µV."""
    age: float = nan
    level: float = nan
    rate: float = nan
    fmp: float = nan
    exists: float = nan
    """1 with a wave V, 0 without."""
    latency: float = nan
    """Latency of wave V, in ms."""
    amplitude: float = nan
    """Amplitude of wave V, in µV."""
    threshold: float = nan
    """In dB."""
    target: int = UNKNOWN_CLASS
    """Index into CLASS_NAMES."""


@dataclass(frozen=True)
class Origin:
    """The origin of responses in one format."""

    format: str
    species: str
    window_ms: float
    """Duration of the 200 points."""
    unit: str
    """Unit of the signal, and how it is known."""


@dataclass(frozen=True)
class Responses:
    """Responses as columns, all of one length."""

    origin: Origin
    patient: NDArray[np.str_]
    signal: NDArray[np.float32]
    """[response, 200], in µV; may be mapped from disk."""
    static: NDArray[np.float32]
    """[response, 4]: age in years, level in dB, rate per second, Fmp; NaN: unknown."""
    labels: dict[str, NDArray[np.float32]]
    """By LABELS: [response], NaN: unknown."""
    target: NDArray[np.int64]
    left_out: dict[str, Any]
    """Counts of unused responses, by reason."""
    marked: dict[str, int] = field(default_factory=dict)
    """The number of files of raters, by the peaks they mark."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about how files were read."""

    def __len__(self) -> int:
        return len(self.target)

    def without_labels(self) -> Responses:
        """The same responses; all labels are unknown."""
        unknown = np.full(len(self), np.nan, np.float32)
        labels, target = dict.fromkeys(LABELS, unknown), np.full(len(self), UNKNOWN_CLASS)
        return replace(self, labels=labels, target=target, marked={})

    @property
    def levels(self) -> NDArray[np.str_]:
        """The level of each response, as a group name."""
        return np.array([f"level {level:g} dB" for level in self.static[:, 1]])


def collect(
    rows: Iterable[Row], origin: Origin, bad_records: BadRecords, on_bad: OnBad
) -> Responses:
    """The columns of `rows`; signals are written to an unnamed temporary file, not to memory.

    A duplicate is left out: a signal of another patient, or the same signal with the same labels
    (with other labels it is the row of another rater). Raises DataError if a row cannot be used
    and `on_bad` is stop, or if no row can be used.
    """
    table = _Table()
    # Only the map holds the file: the disk space is freed when the process ends.
    with tempfile.TemporaryFile(prefix="gearshift-") as spool:
        for row in rows:
            if (problem := impossible(row)) is not None:
                bad_records.add(row.where, problem)
            elif table.add(row):
                spool.write(np.ascontiguousarray(row.signal, np.float32).tobytes())
        skipped = bad_records.finish(on_bad, len(table.target))
        if not table.target:
            raise DataError("no usable response", where="data.path")
        spool.flush()
        signal = np.memmap(spool, np.float32, "r", shape=(len(table.target), POINTS))
    static = np.array(table.static, np.float32)
    return Responses(
        origin,
        np.array(table.patient),
        signal,
        static,
        {name: np.array(column, np.float32) for name, column in table.labels.items()},
        np.array(table.target, np.int64),
        {"skipped": skipped, "duplicates": table.duplicates},
    )


def impossible(row: Row) -> str | None:
    """What of a row no instrument and no rater gives; None: nothing."""
    if not np.isfinite(row.signal).all():
        return "the signal has non-finite values"
    if (peak := float(np.abs(row.signal).max())) > _MOST_UV:
        return f"the signal reaches {peak:.4g} µV, above {_MOST_UV:g}"
    for name, (low, high, unit) in _POSSIBLE.items():
        value = getattr(row, name)
        if not (np.isnan(value) or low <= value <= high):
            return f"{name} is {value:.6g}, outside {low:g} to {high:g} {unit}"
    return None


class _Table:
    """All columns except the signal, and hashes of the signals so far."""

    def __init__(self) -> None:
        self.patient: list[str] = []
        self.static: list[tuple[float, ...]] = []
        self.labels: dict[str, list[float]] = {name: [] for name in LABELS}
        self.target: list[int] = []
        self.duplicates = 0
        self._owner: dict[bytes, str] = {}
        self._rows: set[bytes] = set()

    def add(self, row: Row) -> bool:
        """Add a row; False if it is a duplicate."""
        labels = (*(getattr(row, name) for name in LABELS), row.target)
        signal = sha256(row.signal.tobytes()).digest()[:16]
        whole = sha256(f"{signal.hex()} {row.patient} {labels}".encode()).digest()[:16]
        if self._owner.setdefault(signal, row.patient) != row.patient or whole in self._rows:
            self.duplicates += 1
            return False
        self._rows.add(whole)
        self.patient.append(row.patient)
        self.static.append(tuple(getattr(row, name) for name in STATIC_NAMES))
        for name in LABELS:
            self.labels[name].append(getattr(row, name))
        self.target.append(row.target)
        return True


def resample(trace: NDArray[np.float64], samples: float) -> NDArray[np.float32]:
    """The first `samples` of `trace`, possibly a fraction, as the means of 200 equal intervals.

    The mean over its interval is anti-aliasing enough: at a step of 0.05 ms it passes 96 % of
    3 kHz, the highest frequency of a response. A coarser trace is treated as a step function.
    """
    whole = np.concatenate(([0.0], np.cumsum(trace, dtype=np.float64)))
    edges = np.linspace(0.0, samples, POINTS + 1)
    area = np.interp(edges, np.arange(len(whole)), whole)
    return (np.diff(area) * (POINTS / samples)).astype(np.float32)
