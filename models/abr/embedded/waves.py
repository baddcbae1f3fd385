"""The shape of a response: bumps for waves I to V, and what lies above and below them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.abr.config import POINTS

STEP_MS = 0.05
TIME_MS = np.arange(POINTS) * STEP_MS
Array = NDArray[np.float64]

LATENCY_MS = np.array([1.6, 2.7, 3.8, 5.0, 5.6])
"""Of waves I to V at 80 dB nHL in a young adult. Source: Picton, Human Auditory Evoked Potentials,
2011, of which I, III and V are given and II and IV lie between."""
WIDTH_MS = np.array([0.18, 0.18, 0.22, 0.22, 0.35])
HEIGHT = np.array([0.45, 0.2, 0.5, 0.35, 1.0])
"""Relative to wave V."""
LATER_BY_DB = np.array([0.032, 0.033, 0.034, 0.035, 0.035])
"""Milliseconds for each dB down."""
REFERENCE_DB = 80.0


def latencies(level: Array, age: Array, rate: Array) -> Array:
    """Of each wave, [response, 5], in ms: later with lower levels, with age and with rate."""
    later = (REFERENCE_DB - level)[:, None] * LATER_BY_DB
    share = np.linspace(0.2, 1.0, 5)  # what age and rate add grows on the way to the brainstem
    slower = 0.003 * np.maximum(age - 25, 0) + 0.004 * (rate - 11.1)
    return LATENCY_MS + later + slower[:, None] * share


def bumps(latency: Array, height: Array, widen: Array) -> Array:
    """The sum of the five waves, [response, 200], in µV.

    Each is the derivative of a Gaussian, whose peak stands at its `latency` [response, 5] and is
    `height` high; a trough as deep follows. `widen` [response] smears all of them.
    """
    width = WIDTH_MS * widen[:, None]
    signal = np.zeros((len(latency), POINTS))
    for wave in range(5):
        away = (TIME_MS - (latency + width)[:, wave, None]) / width[:, wave, None]
        signal -= height[:, wave, None] * away * np.exp(0.5 - away**2 / 2)
    return signal


def microphonic(height: Array, phase: Array) -> Array:
    """What the hair cells leave in the first 4 ms, [response, 200]; `height` in µV."""
    rising = 1 - np.exp(-(np.maximum(TIME_MS - 0.4, 0) ** 2) / 0.1)
    envelope = rising * np.exp(-TIME_MS / 1.6)
    ringing = np.sin(2 * np.pi * 1.1 * TIME_MS + phase[:, None])
    return 2.0 * height[:, None] * envelope * ringing


def pink(rms: Array, rng: np.random.Generator) -> Array:
    """Noise of equal power an octave between 100 and 3000 Hz, [response, 200], of `rms` µV."""
    frequency = np.fft.rfftfreq(POINTS, STEP_MS / 1000)
    shape = np.zeros_like(frequency)
    inside = (frequency >= 100) & (frequency <= 3000)
    shape[inside] = frequency[inside] ** -0.5
    drawn = rng.standard_normal((len(rms), len(frequency), 2)) @ np.array([1, 1j])
    noise = np.fft.irfft(drawn * shape, POINTS)
    return noise * (rms / noise.std(axis=1))[:, None]


def muscle(strength: Array, onset: Array, rng: np.random.Generator) -> Array:
    """Bursts of muscle in a few traces, [response, 200]; `strength` in µV, 0: none."""
    burst = np.exp(-(((TIME_MS - onset[:, None]) / 1.5) ** 2))
    return strength[:, None] * burst * pink(np.ones(len(strength)), rng)
