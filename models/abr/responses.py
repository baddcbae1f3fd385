"""Averaged responses with what is known of each, row by row and as columns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.abr.config import POINTS
from models.base import DataError
from models.common.data_files import BadRecords, OnBad

CLASS_NAMES = ("normal", "neuropathy", "sensorineural", "total", "conductive")
UNKNOWN_CLASS = -100
LABELS = ("exists", "latency", "amplitude", "threshold")
STATIC_NAMES = ("age", "level", "rate", "fmp")


@dataclass(frozen=True)
class Row:
    """One averaged response; NaN is what is not known of it."""

    patient: str
    """Whose it is; never on two sides of a split."""
    where: str
    """File and line or level, for a message."""
    signal: NDArray[np.float32]
    """[200], in µV."""
    age: float = nan
    level: float = nan
    rate: float = nan
    fmp: float = nan
    exists: float = nan
    """1 where there is a wave V, 0 where there is none."""
    latency: float = nan
    """Of wave V, in ms."""
    amplitude: float = nan
    """Of wave V, in µV."""
    threshold: float = nan
    """In dB."""
    target: int = UNKNOWN_CLASS
    """Of CLASS_NAMES."""


@dataclass(frozen=True)
class Origin:
    """Where responses come from, in one format."""

    format: str
    species: str
    window_ms: float
    """That the 200 points cover."""
    unit: str
    """Of the signal, and how it is known."""


@dataclass(frozen=True)
class Responses:
    """Responses as columns, all of one length."""

    origin: Origin
    patient: NDArray[np.str_]
    signal: NDArray[np.float32]
    """[response, 200], in µV; may lie on disk."""
    static: NDArray[np.float32]
    """[response, 4]: age in years, level in dB, rate per second, Fmp; NaN: not known."""
    labels: dict[str, NDArray[np.float32]]
    """By LABELS: [response], NaN: not known."""
    target: NDArray[np.int64]
    left_out: dict[str, Any]
    """What was not used, counted by its reason."""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def levels(self) -> NDArray[np.str_]:
        """The level of each response as the name of a group."""
        return np.array([f"level {level:g} dB" for level in self.static[:, 1]])


def collect(
    rows: Iterable[Row], origin: Origin, bad_records: BadRecords, on_bad: OnBad
) -> Responses:
    """The columns of `rows`; signals go to a file without a name, and never stand in memory.

    A response that another patient has, too, is left out, and so is one that is there twice with
    the same labels; one with other labels is another rater's. Raises DataError where a row cannot
    be used and `on_bad` is stop, or where none can.
    """
    table = _Table()
    # Held by the map alone: the disk is free again when the run ends, however it ends.
    with tempfile.TemporaryFile(prefix="gearshift-") as spool:
        for row in rows:
            if not np.isfinite(row.signal).all():
                bad_records.add(row.where, "the signal holds values that are no numbers")
            elif table.add(row):
                spool.write(np.ascontiguousarray(row.signal, np.float32).tobytes())
        skipped = bad_records.finish(on_bad, len(table.target))
        if not table.target:
            raise DataError("there is no response that can be used", where="data.path")
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


class _Table:
    """Columns but for the signal, of which it knows what it has seen."""

    def __init__(self) -> None:
        self.patient: list[str] = []
        self.static: list[tuple[float, ...]] = []
        self.labels: dict[str, list[float]] = {name: [] for name in LABELS}
        self.target: list[int] = []
        self.duplicates = 0
        self._owner: dict[bytes, str] = {}
        self._rows: set[bytes] = set()

    def add(self, row: Row) -> bool:
        """Take a row; or count it as a duplicate, and say no."""
        told = (*(getattr(row, name) for name in LABELS), row.target)
        signal = sha256(row.signal.tobytes()).digest()[:16]
        whole = sha256(f"{signal.hex()} {row.patient} {told}".encode()).digest()[:16]
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


def to_points(trace: NDArray[np.float64], samples: float) -> NDArray[np.float32]:
    """The first `samples` of `trace`, which may be a fraction, as the means of 200 equal parts.

    A mean over the part that a point stands for needs no other filter against aliases: of 3 kHz,
    where a response ends, it leaves 96 % at a step of 0.05 ms. A coarser trace is read as steps.
    """
    whole = np.concatenate(([0.0], np.cumsum(trace, dtype=np.float64)))
    edges = np.linspace(0.0, samples, POINTS + 1)
    area = np.interp(edges, np.arange(len(whole)), whole)
    return (np.diff(area) * (POINTS / samples)).astype(np.float32)
