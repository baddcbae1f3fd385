"""The components of a simulated response: waves I to V, cochlear microphonic, noise, muscle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.abr.config import POINTS

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


def latencies(level: Array, age: Array, rate: Array) -> Array:
    """Latency of each wave, [response, 5], in ms: longer at lower levels, with age and rate."""
    later = (REFERENCE_DB - level)[:, None] * LATER_BY_DB
    share = np.linspace(0.2, 1.0, 5)  # the effect of age and rate grows towards the brainstem
    slower = 0.003 * np.maximum(age - 25, 0) + 0.004 * (rate - 11.1)
    return LATENCY_MS + later + slower[:, None] * share


def sum_of_waves(latency: Array, height: Array, widen: Array) -> Array:
    """The sum of the five waves, [response, 200], in µV.

    Each is the derivative of a Gaussian with its peak `height` at its `latency` [response, 5],
    followed by a trough of equal depth. `widen` [response] scales the widths.
    """
    width = WIDTH_MS * widen[:, None]
    signal = np.zeros((len(latency), POINTS))
    for wave in range(5):
        away = (TIME_MS - (latency + width)[:, wave, None]) / width[:, wave, None]
        signal -= height[:, wave, None] * away * np.exp(0.5 - away**2 / 2)
    return signal


def cochlear_microphonic(height: Array, phase: Array) -> Array:
    """The response of the hair cells in the first 4 ms, [response, 200]; `height` in µV."""
    rising = 1 - np.exp(-(np.maximum(TIME_MS - 0.4, 0) ** 2) / 0.1)
    envelope = rising * np.exp(-TIME_MS / 1.6)
    ringing = np.sin(2 * np.pi * 1.1 * TIME_MS + phase[:, None])
    return 2.0 * height[:, None] * envelope * ringing


def pink_noise(rms: Array, rng: np.random.Generator) -> Array:
    """Noise of equal power per octave from 100 to 3000 Hz, [response, 200], of `rms` µV."""
    frequency = np.fft.rfftfreq(POINTS, STEP_MS / 1000)
    shape = np.zeros_like(frequency)
    inside = (frequency >= 100) & (frequency <= 3000)
    shape[inside] = frequency[inside] ** -0.5
    drawn = rng.standard_normal((len(rms), len(frequency), 2)) @ np.array([1, 1j])
    noise = np.fft.irfft(drawn * shape, POINTS)
    return noise * (rms / noise.std(axis=1))[:, None]


def muscle_artifact(strength: Array, onset: Array, rng: np.random.Generator) -> Array:
    """Bursts of muscle activity, [response, 200]; `strength` in µV, 0: none."""
    burst = np.exp(-(((TIME_MS - onset[:, None]) / 1.5) ** 2))
    return strength[:, None] * burst * pink_noise(np.ones(len(strength)), rng)
