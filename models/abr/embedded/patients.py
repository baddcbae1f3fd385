"""Simulated patients: hearing-loss classes, thresholds and responses."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.abr.config import CLASSES, POINTS
from models.abr.embedded import waves
from models.abr.formats import EMBEDDED
from models.abr.responses import LABELS, Origin, Responses
from models.common import cache

PATIENTS = dict(zip(EMBEDDED, (600, 160), strict=True))
SHARES = {
    "balanced": (0.40, 0.15, 0.15, 0.15, 0.15),
    "clinical": (0.797, 0.008, 0.106, 0.033, 0.056),
}
"""Shares of the classes, in the order of CLASS_NAMES."""
ORIGIN = Origin("simulated", "human", 10.0, "µV, as simulated")
VERSION = 3
SEED = 20
LEVELS = np.arange(90, 5, -10)
RATES = np.array([11.1, 21.1, 33.1])
HEIGHT_UV = 0.5
"""Amplitude of wave V far above threshold."""
HEARING_LOSS_DB = 45.0
"""From this threshold on, an examination starts at the highest level."""
EARLY_WITH_LOSS = 0.4
"""Scale of waves I to IV in a sensorineural loss, which affects them before wave V."""
NORMAL, NEUROPATHY, SENSORINEURAL, TOTAL, CONDUCTIVE = range(CLASSES)
Array = NDArray[np.float64]


def read_patients(path: str, shares: Literal["balanced", "clinical"]) -> Responses:
    """The responses of `path`, one of PATIENTS; simulated once, then mapped from the cache."""
    count = PATIENTS[path]
    made_from = {"version": VERSION, "patients": count, "shares": shares, "seed": SEED}
    columns = cache.arrays("abr", made_from, lambda: simulate(count, SHARES[shares], SEED))
    return Responses(
        ORIGIN,
        np.array([f"patient {number}" for number in columns["patient"]]),
        columns["signal"],
        columns["static"],
        {name: columns[name] for name in LABELS},
        columns["target"],
        {"skipped": 0, "duplicates": 0},
    )


def simulate(patients: int, shares: tuple[float, ...], seed: int) -> dict[str, NDArray]:
    """The columns of Responses, with `patient` as a number; deterministic for its arguments.

    Each patient has two ears, each ear five to eight levels, each level one or two rates.
    """
    rng = np.random.default_rng(seed)
    kind = rng.permutation(_kinds(patients, shares))
    age = rng.uniform(18, 80, patients)
    patient = np.repeat(np.arange(patients), 2)  # by ear
    threshold, gap, growth = _hearing(kind[patient], rng)
    ear, level, rate = _examinations(threshold, rng)
    patient, ears = patient[ear], (threshold[ear], gap[ear], growth[ear])
    signal, latency, height, noise = _signals(kind[patient], age[patient], level, rate, ears, rng)
    exists = height > 0
    ratio = np.square(signal, dtype=np.float64).mean(1) / noise**2
    # Without a response: the ratio of two noise variances, about 1.
    fmp = ratio * rng.f(5, 250, len(ratio))
    static = np.stack((age[patient], level, rate, fmp), axis=1)
    responds = np.isfinite(threshold[ear])
    return {
        "patient": patient,
        "signal": signal.astype(np.float32),
        "static": static.astype(np.float32),
        "exists": exists.astype(np.float32),
        "latency": np.where(exists, latency, np.nan).astype(np.float32),
        "amplitude": np.where(exists, height, np.nan).astype(np.float32),
        "threshold": np.where(responds, threshold[ear], np.nan).astype(np.float32),
        "target": kind[patient].astype(np.int64),
    }


def _kinds(patients: int, shares: tuple[float, ...]) -> NDArray[np.int64]:
    """The class of each patient: counts by share, the remainder normal."""
    counts = [int(share * patients + 0.5) for share in shares]
    counts[NORMAL] = patients - sum(counts[1:])
    return np.repeat(np.arange(CLASSES), counts)


def _hearing(kind: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """By ear: threshold in dB nHL, air-bone gap in dB, and growth of the response in dB.

    The threshold is NaN for an ear without a response at any level.
    """
    ears = len(kind)
    normal = rng.uniform(5, 22, ears)
    gap = np.where(kind == CONDUCTIVE, rng.uniform(25, 45, ears), 0.0)
    threshold = np.where(kind == SENSORINEURAL, rng.uniform(40, 70, ears), normal + gap)
    threshold[(kind == TOTAL) | (kind == NEUROPATHY)] = np.nan
    # Recruitment: steep above a high threshold.
    return threshold, gap, np.where(kind == SENSORINEURAL, 8.0, 25.0)


def _examinations(
    threshold: Array, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Array, Array]:
    """Ear, level and rate of each response, in descending steps of 10 dB.

    An ear with a high threshold is examined from 90 dB, any other from 80 or 70 dB: as in a
    clinic, the level alone carries information about the hearing loss.
    """
    ears = len(threshold)
    levels = rng.integers(5, 9, ears)
    is_impaired = ~(threshold < HEARING_LOSS_DB)
    first = np.where(is_impaired, 0, rng.integers(1, 3, ears)).clip(max=len(LEVELS) - levels)
    rates = rng.integers(1, 3, ears)
    rate = RATES[rng.permuted(np.tile(np.arange(len(RATES)), (ears, 1)), axis=1)[:, :2]]
    ear = np.repeat(np.arange(ears), levels * rates)
    number = np.arange(len(ear)) - np.repeat(
        np.cumsum(levels * rates) - levels * rates, levels * rates
    )
    down, which = np.divmod(number, rates[ear])
    return ear, LEVELS[first[ear] + down].astype(np.float64), rate[ear, which]


def _signals(
    kind: NDArray[np.int64],
    age: Array,
    level: Array,
    rate: Array,
    ears: tuple[Array, Array, Array],
    rng: np.random.Generator,
) -> tuple[Array, Array, Array, Array]:
    """Signal [response, 200]; latency and amplitude of wave V (0: none); RMS of the noise."""
    threshold, gap, growth = ears
    count = len(kind)
    above = np.nan_to_num(level - threshold, nan=-1.0)
    height = HEIGHT_UV * rng.normal(1, 0.12, count).clip(0.6) * -np.expm1(-above.clip(0) / growth)
    # In neuropathy, some responses at high levels are smeared, late and small.
    smeared = (kind == NEUROPATHY) & (level >= 70) & (rng.random(count) < 0.25)
    height = np.where(smeared, 0.08, height)
    latency = waves.latencies(level - gap, age, rate) + rng.normal(0, 0.08, (count, 1))
    latency[:, 4] += 0.6 * smeared
    heights = waves.HEIGHT * height[:, None]
    heights[smeared, :4] = 0
    heights[kind == SENSORINEURAL, :4] *= EARLY_WITH_LOSS
    signal = waves.sum_of_waves(latency, heights, np.where(smeared, 1.8, 1.0))
    left = np.where(kind == NEUROPATHY, 0.15 * np.exp((level - 80) / 25), 0.0)
    signal += waves.cochlear_microphonic(left, rng.uniform(0, 2 * np.pi, count))
    noise = rng.uniform(0.02, 0.06, count)
    signal += waves.pink_noise(noise, rng)
    tense = np.where(rng.random(count) < 0.04, rng.uniform(0.1, 0.3, count), 0.0)
    signal += waves.muscle_artifact(tense, rng.uniform(2, 10, count), rng)
    assert signal.shape == (count, POINTS)
    return signal, latency[:, 4], height, noise
