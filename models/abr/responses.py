"""Responses of all patients, and the statistics that are fitted on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import nan

import numpy as np
from numpy.typing import NDArray

from gearshift.models.abr.config import CLASSES, POINTS, Data
from gearshift.models.base import DataError
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.family import Numbers

Signal = NDArray[np.float32]
UNKNOWN_CLASS = -100
LABELS = ("exists", "latency", "amplitude", "threshold")
"""exists: 1 with a wave V, 0 without; its latency in ms and amplitude in µV; threshold in dB."""
STATIC_NAMES = ("age", "level", "rate", "fmp")
FMP = STATIC_NAMES.index("fmp")
_POSSIBLE = {
    "signal": (-1e6, 1e6, "µV"),
    "age": (0, 150, "years"),
    "level": (-50, 200, "dB"),
    "rate": (0, 10_000, "per second"),
    "fmp": (0, 1e9, "as a ratio of variances"),
    "latency": (0, 100, "ms"),
    "amplitude": (-1e6, 1e6, "µV"),
    "threshold": (-50, 200, "dB"),
}
"""Wide ranges: a value outside is a mistake in the file, not an unusual patient."""


@dataclass(frozen=True)
class ResponseRow:
    """One averaged response."""

    patient: str
    """The patient, animal or file, which stays in one split."""
    where: str
    """File and line or level, for messages."""
    signal: Signal
    """[200], in µV."""
    known: Mapping[str, float] = field(default_factory=dict)
    target: int = UNKNOWN_CLASS
    """Index into CLASS_NAMES."""

    def __getitem__(self, name: str) -> float:
        """The value of one of STATIC_NAMES and LABELS; NaN: unknown."""
        return self.known.get(name, nan)


@dataclass(frozen=True)
class ResponseOrigin:
    """The origin of responses in one format."""

    format: str
    species: str
    window_ms: float
    """Duration of the 200 points."""
    unit: str
    """Unit of the signal, and how it is known."""
    group: str = "patient"
    """What stays in one split, and how it is known."""


@dataclass
class ResponseReading:
    """What readers of one format take, and what they tell of files."""

    settings: Data
    """Read where they have an effect."""
    has_labels: bool = True
    bad_records: BadRecords = field(default_factory=lambda: BadRecords("responses and files"))
    left_out: Counter[str] = field(default_factory=Counter)
    """Counts of unused responses, by reason."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about how files were read."""


@dataclass(frozen=True)
class Responses:
    """Responses as columns, all of one length."""

    origin: ResponseOrigin
    patient: NDArray[np.str_]
    where: Sequence[str]
    """File and line or level, for messages."""
    signal: Signal
    """[response, 200], in µV; may be mapped from disk."""
    static: Signal
    """[response, 4]: age in years, level in dB, rate per second, Fmp; NaN: unknown."""
    labels: dict[str, Signal]
    """By LABELS: [response], NaN: unknown."""
    target: Numbers
    reading: ResponseReading

    def __len__(self) -> int:
        return len(self.target)


def collect(
    rows: Iterable[ResponseRow],
    origin: ResponseOrigin,
    reading: ResponseReading,
) -> Responses:
    """The columns of `rows`.

    With labels, a duplicate is left out: a signal of another patient, or the same signal with the
    same labels (with other labels it is the row of another rater). Raises DataError if a row cannot
    be used and data.on_bad is stop, or if no row can be used.
    """
    unique: dict[tuple[bytes, str], ResponseRow] = {}
    patient_of_signal: dict[bytes, str] = {}
    for row in rows:
        problem = impossible(row)
        if problem is not None:
            reading.bad_records.add(row.where, problem)
            continue
        # Digests, because whole rows of a large table would not fit into memory twice.
        signal = sha256(row.signal.tobytes()).digest()
        if not reading.has_labels:
            signal = row.where.encode()
        key = (signal, f"{row.target} {[row[name] for name in LABELS]}")
        patient = patient_of_signal.setdefault(signal, row.patient)
        if patient != row.patient or key in unique:
            reading.left_out["duplicates"] += 1
        else:
            unique[key] = row

    usable = [*unique.values()]
    reading.left_out["skipped"] = reading.bad_records.finish(reading.settings.on_bad, len(usable))
    reading.left_out = +reading.left_out  # without counts of 0
    if not usable:
        raise DataError(
            "no usable response", where=f"data.path, left out: {dict(reading.left_out)}"
        )

    def column(name: str) -> Signal:
        return np.array([row[name] for row in usable], np.float32)

    return Responses(
        origin,
        np.array([row.patient for row in usable]),
        [row.where for row in usable],
        np.array([row.signal for row in usable], np.float32),
        np.stack([column(name) for name in STATIC_NAMES], axis=1),
        {name: column(name) for name in LABELS},
        np.array([row.target for row in usable], np.int64),
        reading,
    )


def impossible(row: ResponseRow) -> str | None:
    """What of a row no instrument and no rater gives; None: nothing."""
    # Of the signal the point farthest from 0; NaN there counts as infinite.
    signal = np.nan_to_num(row.signal, nan=np.inf, posinf=np.inf, neginf=-np.inf)
    values = {**row.known, "signal": signal[np.abs(signal).argmax()]}
    for name, (low, high, unit) in _POSSIBLE.items():
        value = values.get(name, nan)
        # NaN is neither.
        if value < low or value > high:
            return f"{name} is {value:.6g}, outside {low:g} to {high:g} {unit}"
    return None


def resample(
    trace: NDArray[np.float64],
    samples: float,
) -> Signal:
    """The first `samples` of `trace`, possibly a fraction, as the means of 200 equal intervals.

    The mean over its interval is anti-aliasing enough: at a step of 0.05 ms it passes 96 % of
    3 kHz, the highest frequency of a response. A coarser trace is treated as a step function.
    """
    whole = np.concatenate(([0.0], np.cumsum(trace)))
    area = np.interp(np.linspace(0.0, samples, POINTS + 1), np.arange(len(whole)), whole)
    return (np.diff(area) * (POINTS / samples)).astype(np.float32)


Pair = tuple[float, float]


@dataclass(frozen=True)
class Statistics:
    """Fitted on training patients; saved in the run folder and as buffers of the model."""

    signal_rms: float = 1.0
    """RMS over all points of all responses, in µV."""
    facts_mean: tuple[float, ...] = (0.0,) * 4
    """Of `even_facts`."""
    facts_scale: tuple[float, ...] = (1.0,) * 4
    latency: Pair = (0.0, 1.0)
    """Mean and standard deviation, in ms."""
    amplitude: Pair = (0.0, 1.0)
    """Mean and standard deviation, in µV."""
    threshold: Pair = (0.0, 1.0)
    """Mean and standard deviation, in dB."""
    class_weight: tuple[float, ...] = (1.0,) * CLASSES
    """Inversely proportional to the class frequency, 1 on average; 1 for absent classes."""


def fit(
    responses: Responses,
    train: Numbers,
) -> Statistics:
    """The statistics of the responses with the indices `train`, in float64."""
    power = np.square(responses.signal[train], dtype=np.float64).mean()
    means, scales = zip(*map(_moments, even_facts(responses.static[train]).T), strict=True)
    target = responses.target[train]
    latency, amplitude, threshold = [
        _moments(responses.labels[name][train]) for name in ("latency", "amplitude", "threshold")
    ]
    counts = np.bincount(target[target >= 0], minlength=CLASSES)
    present = counts > 0
    # The mean weight of a sample is 1.
    weights = counts.sum() / (present.sum().clip(1) * counts.clip(1))
    return Statistics(
        float(np.sqrt(power)) or 1.0,
        means,
        scales,
        latency,
        amplitude,
        threshold,
        tuple(np.where(present, weights, 1.0).tolist()),
    )


def even_facts(static: Signal) -> Signal:
    """`static` [..., 4] with log(1 + Fmp) instead of Fmp.

    Fmp is about 1 without a response and up to 60 with one: beside such a ratio, the difference
    between 1 and 3, which decides, would be lost.
    """
    facts = static.copy()
    facts[..., FMP] = np.log1p(facts[..., FMP])
    return facts


def _moments(column: Signal) -> Pair:
    """Mean and standard deviation of the known values; without any: 0 and 1. Never deviation 0."""
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0
