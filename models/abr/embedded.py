"""Simulated patients: hearing-loss classes, thresholds, and responses made of waves and noise."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gearshift.models.abr.config import CLASSES, POINTS, Data
from gearshift.models.abr.formats import EMBEDDED
from gearshift.models.abr.responses import LABELS, ResponseOrigin, ResponseReading, Responses
from gearshift.models.common import cache

STEP_MS = 0.05
TIME_MS = np.arange(POINTS) * STEP_MS
Array = NDArray[np.float64]

LATENCY_MS = np.array([1.6, 2.7, 3.8, 5.0, 5.6])
"""Latencies of waves I to V at 80 dB nHL in a young adult. Source: Picton, Human Auditory Evoked
Potentials, 2011, for I, III and V; II and IV are interpolated."""
WIDTH_MS = np.array([0.18, 0.18, 0.22, 0.22, 0.35])
HEIGHT = np.array([0.45, 0.2, 0.5, 0.35, 1.0])
"""Amplitudes relative to wave V."""
LATER_BY_DB = np.array([0.032, 0.033, 0.034, 0.035, 0.035])
"""Added latency in milliseconds per dB below the reference."""
REFERENCE_DB = 80.0


def latencies(
    level: Array,
    age: Array,
    rate: Array,
) -> Array:
    """Latency of each wave, [response, 5], in ms: longer at lower levels, with age and rate."""
    later = (REFERENCE_DB - level)[:, None] * LATER_BY_DB
    slower = 0.003 * np.maximum(age - 25, 0) + 0.004 * (rate - 11.1)
    # The effect of age and rate grows towards the brainstem.
    share = np.linspace(0.2, 1.0, 5)
    return LATENCY_MS + later + slower[:, None] * share


def sum_of_waves(
    latency: Array,
    height: Array,
    widen: Array,
) -> Array:
    """The sum of the five waves, [response, 200], in µV.

    Each is the derivative of a Gaussian with its peak `height` at its `latency` [response, 5],
    followed by a trough of equal depth. `widen` [response] scales the widths.
    """
    width = WIDTH_MS * widen[:, None]
    waves = zip((latency + width).T, width.T, height.T, strict=True)
    signal = np.zeros((len(latency), POINTS))
    for center, scale, peak in waves:
        away = (TIME_MS - center[:, None]) / scale[:, None]
        bell = np.exp(0.5 - away**2 / 2)
        signal -= peak[:, None] * away * bell
    return signal


def cochlear_microphonic(height: Array, phase: Array) -> Array:
    """The response of the hair cells in the first 4 ms, [response, 200]; `height` in µV."""
    since = np.maximum(TIME_MS - 0.4, 0)
    rising = 1 - np.exp(-(since**2) / 0.1)
    envelope = rising * np.exp(-TIME_MS / 1.6)
    ringing = np.sin(2 * np.pi * 1.1 * TIME_MS + phase[:, None])
    return 2.0 * height[:, None] * envelope * ringing


def pink_noise(rms: Array, rng: Generator) -> Array:
    """Noise of equal power per octave from 100 to 3000 Hz, [response, 200], of `rms` µV."""
    frequency = np.fft.rfftfreq(POINTS, STEP_MS / 1000)
    inside = (frequency >= 100) & (frequency <= 3000)
    shape = np.where(inside, frequency, np.inf) ** -0.5
    parts = rng.standard_normal((len(rms), len(frequency), 2))
    spectrum = parts @ np.array([1, 1j])
    noise = np.fft.irfft(spectrum * shape, POINTS)
    return noise * (rms / noise.std(axis=1))[:, None]


def muscle_artifact(
    strength: Array,
    onset: Array,
    rng: Generator,
) -> Array:
    """Bursts of muscle activity, [response, 200]; `strength` in µV, 0: none."""
    away = (TIME_MS - onset[:, None]) / 1.5
    burst = np.exp(-(away**2))
    noise = pink_noise(np.ones(len(strength)), rng)
    return strength[:, None] * burst * noise


PATIENTS = dict(zip(EMBEDDED, (600, 160), strict=True))
SHARES = {
    "balanced": (0.40, 0.15, 0.15, 0.15, 0.15),
    "clinical": (0.797, 0.008, 0.106, 0.033, 0.056),
}
"""Shares of the classes, in the order of CLASS_NAMES."""
ORIGIN = ResponseOrigin(
    format="simulated",
    species="human",
    window_ms=10.0,
    unit="µV, as simulated",
)
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


def read_patients(path: str, shares: Literal["balanced", "clinical"]) -> Responses:
    """The responses of `path`, one of PATIENTS; simulated once, then mapped from the cache."""
    count = PATIENTS[path]
    made_from = {
        "version": VERSION,
        "patients": count,
        "shares": shares,
        "seed": SEED,
    }
    columns = cache.arrays(
        "abr",
        made_from,
        lambda: simulate(count, SHARES[shares], SEED),
    )
    names = [f"patient {number}" for number in columns["patient"]]
    return Responses(
        ORIGIN,
        np.array(names),
        names,
        columns["signal"],
        columns["static"],
        {name: columns[name] for name in LABELS},
        columns["target"],
        ResponseReading(Data()),
    )


def simulate(
    patients: int,
    shares: tuple[float, ...],
    seed: int,
) -> dict[str, NDArray]:
    """The columns of Responses, with `patient` as a number; deterministic for its arguments.

    Each patient has two ears, each ear five to eight levels, each level one or two rates.
    """
    rng = np.random.default_rng(seed)
    counts = [int(share * patients + 0.5) for share in shares]
    # What rounding leaves over has normal hearing.
    counts[NORMAL] = patients - sum(counts[1:])
    kind = rng.permutation(np.repeat(np.arange(CLASSES), counts))
    age = rng.uniform(18, 80, patients)

    # By ear: both have the same kind of hearing loss.
    patient = np.repeat(np.arange(patients), 2)
    threshold, gap = hearing(kind[patient], rng)
    ear, level, rate = examinations(threshold, rng)

    # By response.
    patient = patient[ear]
    threshold = threshold[ear]
    kind = kind[patient]
    age = age[patient]
    usual = latencies(level - gap[ear], age, rate)
    latency, height, fmp, signal = responses(
        kind,
        level,
        level - threshold,
        usual,
        rng,
    )
    exists = height > 0
    columns = {
        "signal": signal,
        "static": np.stack((age, level, rate, fmp), axis=1),
        "exists": exists,
        "latency": np.where(exists, latency, np.nan),
        "amplitude": np.where(exists, height, np.nan),
        "threshold": threshold,
    }
    narrow = {name: column.astype(np.float32) for name, column in columns.items()}
    return {"patient": patient, **narrow, "target": kind.astype(np.int64)}


def hearing(kind: NDArray, rng: Generator) -> tuple[Array, Array]:
    """The threshold in dB nHL of each ear, NaN: no response at any level; and its air-bone gap."""
    ears = len(kind)
    normal = rng.uniform(5, 22, ears)
    gap = (kind == CONDUCTIVE) * rng.uniform(25, 45, ears)
    raised = rng.uniform(40, 70, ears)
    threshold = np.where(kind == SENSORINEURAL, raised, normal + gap)
    # Neither of them answers at any level.
    threshold[(kind == TOTAL) | (kind == NEUROPATHY)] = np.nan
    return threshold, gap


def examinations(threshold: Array, rng: Generator) -> tuple[NDArray, Array, Array]:
    """Ear, level and rate of each response, in descending steps of 10 dB.

    An ear with a high threshold is examined from 90 dB, any other from 80 or 70 dB: as in a
    clinic, the level alone carries information about the hearing loss.
    """
    ears = len(threshold)
    levels = rng.integers(5, 9, ears)
    # NaN is not below: without any response, too, the first level is the highest.
    lower = (threshold < HEARING_LOSS_DB) * rng.integers(1, 3, ears)
    first = np.minimum(lower, len(LEVELS) - levels)
    rates = rng.integers(1, 3, ears)
    # Of the three rates in a random order, one or two are used.
    rates_of_ear = rng.permuted(np.tile(RATES, (ears, 1)), axis=1)

    # An ear, then its levels, then the rates of a level.
    counts = levels * rates
    ear = np.repeat(np.arange(ears), counts)
    before = np.cumsum(counts) - counts
    number = np.arange(len(ear)) - before[ear]
    step, which = np.divmod(number, rates[ear])
    level = LEVELS[first[ear] + step].astype(np.float64)
    return ear, level, rates_of_ear[ear, which]


def responses(
    kind: NDArray,
    level: Array,
    above: Array,
    usual: Array,
    rng: Generator,
) -> tuple[Array, Array, Array, Array]:
    """Latency and amplitude of wave V (0: none), Fmp, and the signal of each response.

    `above`: the dB above the threshold, NaN without one; `usual` [response, 5]: mean latencies.
    """
    count = len(kind)
    is_sensorineural = kind == SENSORINEURAL
    is_neuropathy = kind == NEUROPATHY
    above = np.nan_to_num(above, nan=-1.0).clip(0)
    growth = np.where(is_sensorineural, 8.0, 25.0)  # recruitment: steep above a high threshold
    strength = rng.normal(1, 0.12, count).clip(0.6)
    height = HEIGHT_UV * strength * -np.expm1(-above / growth)
    # In neuropathy, some responses at high levels are smeared, late and small.
    smeared = is_neuropathy & (level >= 70) & (rng.random(count) < 0.25)
    height = np.where(smeared, 0.08, height)
    latency = usual + rng.normal(0, 0.08, (count, 1))
    latency[:, 4] += 0.6 * smeared

    # A smeared response has no wave but V.
    heights = HEIGHT * height[:, None]
    heights[smeared, :4] = 0
    heights[is_sensorineural, :4] *= EARLY_WITH_LOSS
    signal = sum_of_waves(latency, heights, np.where(smeared, 1.8, 1.0))

    # In neuropathy the hair cells answer, although the nerve does not.
    microphonic = is_neuropathy * (0.15 * np.exp((level - 80) / 25))
    phase = rng.uniform(0, 2 * np.pi, count)
    signal += cochlear_microphonic(microphonic, phase)
    noise = rng.uniform(0.02, 0.06, count)
    signal += pink_noise(noise, rng)
    # A few patients tense their muscles.
    is_tense = rng.random(count) < 0.04
    muscle = is_tense * rng.uniform(0.1, 0.3, count)
    onset = rng.uniform(2, 10, count)
    signal += muscle_artifact(muscle, onset, rng)

    # The ratio of two variances; without a response, of noise: about 1.
    power = np.square(signal).mean(1)
    fmp = power / noise**2 * rng.f(5, 250, count)
    return latency[:, 4], height, fmp, signal
