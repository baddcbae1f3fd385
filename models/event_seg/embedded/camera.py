"""Simulated event camera: a change of log brightness by a threshold gives an event."""

from __future__ import annotations

import numpy as np

from models.event_seg.readers.recording import Events

THRESHOLD, DEVIATION = 0.2, 0.03
"""Mean and standard deviation of the pixels' contrast thresholds, in log brightness."""
REFRACTORY_S = 1e-3
NOISE_HZ = 0.1
"""Noise events per pixel and second."""
HOT_SHARE, HOT_HZ = 2e-4, 100.0


class Camera:
    """Pixels of one clip. Sources: Rebecq et al., ESIM, 2018; Hu et al., v2e, 2021."""

    def __init__(self, rng: np.random.Generator, brightness: np.ndarray) -> None:
        """`brightness` [height, width] at time 0."""
        self._rng, self._width = rng, brightness.shape[1]
        self._before = np.log(brightness.ravel())
        self._level = self._before.copy()
        thresholds = rng.normal(THRESHOLD, DEVIATION, brightness.size)
        self._threshold = np.clip(thresholds, 0.1, 0.3).astype(np.float32)
        self._fired = np.full(brightness.size, -np.inf, np.float32)

    def observe(self, brightness: np.ndarray, start: float, stop: float) -> Events:
        """Events of (start, stop], seconds, during a linear change to `brightness`."""
        after = np.log(brightness.ravel())
        crossings = np.trunc((after - self._level) / self._threshold)
        pixels = np.flatnonzero(crossings)
        sign = np.sign(crossings[pixels])
        count = np.abs(crossings[pixels]).astype(np.int64)
        parts = []
        for number in range(1, int(count.max(initial=0)) + 1):
            has = count >= number
            at, s = pixels[has], sign[has]
            level = self._level[at] + number * s * self._threshold[at]
            change = after[at] - self._before[at]
            share = np.clip((level - self._before[at]) / np.where(change == 0, 1, change), 0, 1)
            t = start + share * (stop - start)
            rested = t - self._fired[at] >= REFRACTORY_S
            self._fired[at[rested]] = t[rested]
            parts.append((t[rested], at[rested], s[rested].astype(np.int8)))
        self._level[pixels] += crossings[pixels] * self._threshold[pixels]
        self._before = after
        return self._gathered(parts)

    def noise(self, duration: float) -> Events:
        """Noise events of [0, duration) seconds, unsorted."""
        rng, pixels = self._rng, self._fired.size
        hot = rng.choice(pixels, max(1, round(HOT_SHARE * pixels)), replace=False)
        shots = rng.integers(0, pixels, rng.poisson(NOISE_HZ * pixels * duration))
        from_hot = rng.choice(hot, rng.poisson(HOT_HZ * len(hot) * duration))
        at = np.concatenate((shots, from_hot))
        sign = rng.choice(np.array([-1, 1], np.int8), len(at))
        return self._gathered([(rng.uniform(0, duration, len(at)), at, sign)])

    def _gathered(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Events:
        parts = parts or [(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int8))]
        t, at, sign = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Events(
            t, (at % self._width).astype(np.uint16), (at // self._width).astype(np.uint16), sign
        )
