"""Simulated patients: hearing-loss classes, thresholds, and responses made of waves and noise."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gearshift.models.abr.config import CLASSES, POINTS, Data
from gearshift.models.abr.formats import EMBEDDED
from gearshift.models.abr.responses import ResponseOrigin, ResponseReading, Responses

STEP_MS = 0.05
TIME_MS = np.arange(POINTS) * STEP_MS
Array = NDArray[np.float64]

WAVES = np.array(
    [
        [1.6, 2.7, 3.8, 5.0, 5.6],
        [0.18, 0.18, 0.22, 0.22, 0.35],
        [0.45, 0.2, 0.5, 0.35, 1.0],
        [0.032, 0.033, 0.034, 0.035, 0.035],
        np.linspace(0.2, 1.0, 5),
    ]
)
"""Of waves I to V: latency in ms at 80 dB nHL in a young adult; width in ms; amplitude relative to
wave V; added latency in ms per dB below the reference; share of the effect of age and rate, which
grows towards the brainstem. Source: Picton, Human Auditory Evoked Potentials, 2011, for the
latencies of I, III and V; those of II and IV are interpolated."""
LATENCY_MS, WIDTH_MS, HEIGHT, LATER_BY_DB, SLOWING = WAVES[..., None, None]  # [wave, 1, 1]
REFERENCE_DB = 80.0


def sum_of_waves(
    latency: Array,
    height: Array,
    widen: Array,
) -> Array:
    """The sum of the five waves, [response, 200], in µV.

    Each is the derivative of a Gaussian with its peak `height` at its `latency`, both
    [wave, response, 1], followed by a trough of equal depth. `widen` [response, 1] scales the
    widths.
    """
    width = WIDTH_MS * widen
    signal = np.zeros((len(widen), POINTS))
    for center, scale, peak in zip(latency + width, width, height, strict=True):
        away = (TIME_MS - center) / scale
        signal -= peak * away * np.exp(0.5 - away**2 / 2)
    return signal


def pink_noise(
    rms: Array,
    rng: Generator,
) -> Array:
    """Noise of equal power per octave from 100 to 3000 Hz, [response, 200].

    `rms` [response, 1] in µV.
    """
    frequency = np.fft.rfftfreq(POINTS, STEP_MS / 1000)
    inside = (frequency >= 100) & (frequency <= 3000)
    shape = np.where(inside, frequency, np.inf) ** -0.5
    parts = rng.standard_normal((len(rms), len(frequency), 2))
    noise = np.fft.irfft(
        parts @ np.array([1, 1j]) * shape,
        POINTS,
    )
    return noise * (rms / noise.std(1, keepdims=True))


PATIENTS = dict(zip(EMBEDDED, (600, 160), strict=True))
SHARES = {
    "balanced": (0.40, 0.15, 0.15, 0.15, 0.15),
    "clinical": (0.797, 0.008, 0.106, 0.033, 0.056),
}
"""Shares of the classes, in the order of CLASS_NAMES."""
ORIGIN = ResponseOrigin("simulated", "human", 10.0, "µV, as simulated")
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


def simulate(
    patients: int,
    shares: tuple[float, ...],
    seed: int = SEED,
) -> Responses:
    """Responses of simulated patients; deterministic for its arguments.

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
    kind = kind[patient]
    normal = rng.uniform(5, 22, len(kind))
    gap = (kind == CONDUCTIVE) * rng.uniform(25, 45, len(kind))
    threshold = np.where(
        kind == SENSORINEURAL,
        rng.uniform(40, 70, len(kind)),
        normal + gap,
    )
    # Neither of them answers at any level.
    threshold[np.isin(kind, (TOTAL, NEUROPATHY))] = np.nan
    ear, level, rate = examinations(threshold, rng)

    # By response, in columns [response, 1].
    patient = patient[ear]
    kind = kind[ear]
    age = age[patient]
    threshold = threshold[ear]
    # Waves are later at lower levels, with age and at higher rates.
    slower = 0.003 * np.maximum(age - 25, 0) + 0.004 * (rate - 11.1)
    faint = REFERENCE_DB - (level - gap[ear])
    usual = LATENCY_MS + faint * LATER_BY_DB + slower * SLOWING
    latency, height, fmp, signal = responses(
        kind,
        level,
        level - threshold,
        usual,
        rng,
    )
    exists = height > 0
    labels = {
        "exists": exists,
        "latency": np.where(exists, latency, np.nan),
        "amplitude": np.where(exists, height, np.nan),
        "threshold": threshold,
    }
    names = [f"patient {number}" for number in patient.ravel()]
    return Responses(
        ORIGIN,
        np.array(names),
        names,
        signal.astype(np.float32),
        np.hstack((age, level, rate, fmp)).astype(np.float32),
        {name: column.ravel().astype(np.float32) for name, column in labels.items()},
        kind.ravel(),
        ResponseReading(Data()),
    )


def examinations(
    threshold: Array,
    rng: Generator,
) -> tuple[NDArray, Array, Array]:
    """Ear, level and rate of each response, in descending steps of 10 dB: columns [response, 1].

    An ear with a high threshold is examined from 90 dB, any other from 80 or 70 dB: as in a
    clinic, the level alone carries information about the hearing loss.
    """
    ears = (len(threshold), 1, 1)
    levels = rng.integers(5, 9, ears)
    # NaN is not below: without any response, too, the first level is the highest.
    is_low = threshold.reshape(ears) < HEARING_LOSS_DB
    first = np.minimum(
        is_low * rng.integers(1, 3, ears),
        len(LEVELS) - levels,
    )
    rates = rng.integers(1, 3, ears)
    # Of the three rates in a random order, one or two are used.
    rates_of_ear = rng.permuted(np.tile(RATES, (len(threshold), 1)), axis=1)

    # An ear, then its levels, then the rates of a level.
    is_used = (np.arange(8)[:, None] < levels) & (np.arange(2) < rates)
    ear, step, which = np.argwhere(is_used)[..., None].swapaxes(0, 1)
    level = LEVELS[first[ear, 0, 0] + step].astype(np.float64)
    return ear, level, rates_of_ear[ear, which]


def responses(
    kind: NDArray,
    level: Array,
    above: Array,
    usual: Array,
    rng: Generator,
) -> tuple[Array, Array, Array, Array]:
    """Latency and amplitude of wave V (0: none), Fmp, and the signal of each response.

    Columns [response, 1]. `above`: the dB above the threshold, NaN without one; `usual`
    [wave, response, 1]: mean latencies.
    """
    is_sensorineural = kind == SENSORINEURAL
    is_neuropathy = kind == NEUROPATHY
    growth = np.where(is_sensorineural, 8.0, 25.0)  # recruitment: steep above a high threshold
    strength = rng.normal(1, 0.12, kind.shape).clip(0.6)
    height = HEIGHT_UV * strength * -np.expm1(-np.nan_to_num(above).clip(0) / growth)
    # In neuropathy, some responses at high levels are smeared, late and small.
    smeared = is_neuropathy & (level >= 70) & (rng.random(kind.shape) < 0.25)
    height = np.where(smeared, 0.08, height)
    latency = usual + rng.normal(0, 0.08, kind.shape)
    latency[4] += 0.6 * smeared

    heights = HEIGHT * height
    # A smeared response has no wave but V.
    heights[:4] *= ~smeared
    heights[:4] *= np.where(is_sensorineural, EARLY_WITH_LOSS, 1)
    signal = sum_of_waves(
        latency,
        heights,
        np.where(smeared, 1.8, 1.0),
    )

    # In neuropathy the hair cells answer in the first 4 ms, although the nerve does not.
    microphonic = is_neuropathy * (0.15 * np.exp((level - 80) / 25))
    since = np.maximum(TIME_MS - 0.4, 0)
    envelope = (1 - np.exp(-(since**2) / 0.1)) * np.exp(-TIME_MS / 1.6)
    phase = rng.uniform(0, 2 * np.pi, kind.shape)
    tone = np.sin(2 * np.pi * 1.1 * TIME_MS + phase)
    signal += 2.0 * microphonic * envelope * tone
    noise = rng.uniform(0.02, 0.06, kind.shape)
    signal += pink_noise(noise, rng)
    # A few patients tense their muscles, in bursts.
    muscle = (rng.random(kind.shape) < 0.04) * rng.uniform(0.1, 0.3, kind.shape)
    away = (TIME_MS - rng.uniform(2, 10, kind.shape)) / 1.5
    signal += muscle * np.exp(-(away**2)) * pink_noise(np.ones(kind.shape), rng)

    # The ratio of two variances; without a response, of noise: about 1.
    fmp = np.square(signal).mean(1, keepdims=True) / noise**2 * rng.f(5, 250, kind.shape)
    return latency[4], height, fmp, signal
