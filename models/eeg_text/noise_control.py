"""The noise control: noise with the spectrum of EEG, exchanged items, and the chance band."""

from __future__ import annotations

import math

import numpy as np


def phase_randomised(eeg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise with the power spectrum of each channel of `eeg` [time, channel], float32.

    Each channel gets its own random phases: no temporal order and no correlation between channels
    is left. Source: Theiler et al., Testing for nonlinearity in time series: the
    method of surrogate data, 1992.
    """
    spectrum = np.abs(np.fft.rfft(eeg, axis=0)).astype(np.float32)
    phases = rng.uniform(0, 2 * math.pi, spectrum.shape).astype(np.float32)
    phases[0] = 0
    if len(eeg) % 2 == 0:
        phases[-1] = 0  # the highest frequency has no phase
    return np.fft.irfft(spectrum * np.exp(1j * phases), n=len(eeg), axis=0).astype(np.float32)


def random_others(groups: list[str], seed: int) -> np.ndarray:
    """For each item a random item of another group, if there are two groups; int64.

    Items are drawn uniformly, so that the drawn item reveals nothing about the original.
    """
    rng = np.random.default_rng([seed, len(groups)])
    chosen = rng.integers(len(groups), size=len(groups))
    names = np.unique(groups, return_inverse=True)[1]
    while names.any() and (same := names[chosen] == names).any():
        chosen[same] = rng.integers(len(groups), size=int(same.sum()))
    return chosen


def retrieval_band(candidates: int, sentences: int) -> dict[str, float]:
    """The chance of retrieving the true one of `candidates`, plus and minus three errors."""
    chance = 1 / candidates
    error = math.sqrt(chance * (1 - chance) / sentences)
    return {"min": max(0.0, chance - 3 * error), "max": chance + 3 * error, "chance": chance}
