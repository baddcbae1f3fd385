"""One split: windows of recordings, read and made into samples one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from models.base import Draws
from models.event_seg.config import BINS
from models.event_seg.network import IGNORE
from models.event_seg.readers.recording import IGNORED, Events, Recording
from models.event_seg.voxel import normalise, voxelise

PATCH = 8
"""Edge in pixels of the squares that are hidden."""
HIDDEN = 0.5
"""Share of the squares."""
MEASURED = 1000
"""Windows that the share of the foreground is measured on, at most."""
Control = Literal["real", "noise", "shuffle"]


@dataclass(frozen=True)
class Rules:
    """How windows become samples."""

    downsample: int
    crop: tuple[int, int] | None
    control: Control
    seed: int
    is_masked: bool
    """What is learnt are the events on hidden pixels."""


@dataclass(frozen=True)
class Sample:
    """One window; arrays of [.., height, width]."""

    events: np.ndarray
    """[bin, height, width], float32: the normalised voxel grid."""
    labels: np.ndarray
    """Classes, int64; or [2, height, width], float32, where pixels are hidden."""
    hidden: np.ndarray | None
    meta: dict[str, Any]


class Windows:
    """The samples of a split. In training, crops and hidden pixels differ from epoch to epoch;
    elsewhere they are those of the index."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        windows: np.ndarray,
        rules: Rules,
        fixed: int | None,
    ) -> None:
        """`windows` [window, 2] are numbers of recordings and of their windows; `fixed` numbers a
        split whose samples never change."""
        self.recordings, self.windows, self.rules, self.fixed = recordings, windows, rules, fixed
        height, width = (n // rules.downsample for n in recordings[0].sensor)
        crop = rules.crop or (height, width)
        self.grid = height, width
        self.shape = min(crop[0], height), min(crop[1], width)
        self.is_cropped = self.shape != self.grid

    def __len__(self) -> int:
        return len(self.windows)

    def sample(self, index: int, draws: Draws) -> Sample:
        """The sample at `index`. Reads its window and no more; raises DataError."""
        return self.drawn(index, draws.rng() if self.fixed is None else self._rng(index))

    def drawn(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample at `index`, with everything in it that is random drawn from `rng`."""
        seen = self._events(index)
        place = self._place(seen, rng) if self.is_cropped else (0, 0)
        partner = self._partner(index, rng)
        if self.rules.control == "noise":
            # Not as many as there were: how much moves tells how much foreground there is.
            count = len(self._events(self._elsewhere(index, rng)))
            seen = _poisson(count, *self._span(index), self.grid, rng)
        seen = self._cropped(seen, place)
        grid = self._voxels(seen, index)
        if not self.rules.is_masked:
            return Sample(grid, self._classes(partner, place), None, self._meta(index, len(seen)))
        hidden, told = self._hidden(rng), grid
        if partner != index:
            told = self._voxels(self._cropped(self._events(partner), place), partner)
        return Sample(grid, _mass(told), hidden, self._meta(index, len(seen)))

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.rules.seed, self.fixed or 0, index))

    def _place(self, events: Events, rng: np.random.Generator) -> tuple[int, int]:
        """The upper left corner of a crop around an event: elsewhere there is nothing to see."""
        (height, width), (rows, columns) = self.grid, self.shape
        top, left = rng.integers(0, rows), rng.integers(0, columns)
        middle = int(rng.integers(0, max(1, len(events))))
        y, x = (events.y[middle], events.x[middle]) if len(events) else (height // 2, width // 2)
        return int(np.clip(y - top, 0, height - rows)), int(np.clip(x - left, 0, width - columns))

    def _partner(self, index: int, rng: np.random.Generator) -> int:
        """The window whose label is shown."""
        return self._elsewhere(index, rng) if self.rules.control == "shuffle" else index

    def _elsewhere(self, index: int, rng: np.random.Generator) -> int:
        """A window of another recording, or, where there is none, of another time."""
        recording, window = self.windows[index]
        far = self.windows[:, 0] != recording
        if not far.any():
            away = np.abs(self.windows[:, 1] - window)
            far = away >= max(1, away.max() / 2)
        others = np.flatnonzero(far)
        return int(rng.choice(others)) if len(others) else index

    def _events(self, index: int) -> Events:
        recording, window = self._at(index)
        return recording.events(window).downsampled(self.rules.downsample, *self.grid)

    def _cropped(self, events: Events, place: tuple[int, int]) -> Events:
        if not self.is_cropped:
            return events
        moved = Events(events.t, events.x - place[1], events.y - place[0], events.p)
        return moved.downsampled(1, *self.shape)

    def _voxels(self, events: Events, index: int) -> np.ndarray:
        return normalise(voxelise(events, *self._span(index), (BINS, *self.shape)))

    def _span(self, index: int) -> tuple[float, float]:
        """Start and stop of a window, in the dtype of its times."""
        recording, window = self._at(index)
        start, stop = recording.windows[window]
        return start, stop

    def _at(self, index: int) -> tuple[Recording, int]:
        number, window = self.windows[index].tolist()
        return self.recordings[number], window

    def _classes(self, index: int, place: tuple[int, int]) -> np.ndarray:
        recording, window = self._at(index)
        label = recording.label(window, self.rules.downsample)
        top, left = place
        label = label[top : top + self.shape[0], left : left + self.shape[1]].astype(np.int64)
        label[label == IGNORED] = IGNORE
        return label

    def _hidden(self, rng: np.random.Generator) -> np.ndarray:
        height, width = self.shape
        squares = rng.random((-(-height // PATCH), -(-width // PATCH))) < HIDDEN
        return squares.repeat(PATCH, 0).repeat(PATCH, 1)[:height, :width]

    def _meta(self, index: int, count: int) -> dict[str, Any]:
        recording, window = self._at(index)
        start, stop = (recording.windows[window] / recording.second).tolist()
        name = recording.name
        return {"recording": name, "frame": window, "t0": start, "t1": stop, "events": count}

    def foreground(self) -> tuple[int, int]:
        """Pixels of the foreground and of both classes, over at most MEASURED windows evenly
        spaced; in the crops of an evaluation."""
        chosen = np.unique(np.linspace(0, len(self) - 1, MEASURED).astype(int)).tolist()
        foreground = both = 0
        for index in chosen:
            rng = self._rng(index)
            place = self._place(self._events(index), rng) if self.is_cropped else (0, 0)
            label = self._classes(self._partner(index, rng), place)
            foreground += int((label == 1).sum())
            both += int((label != IGNORE).sum())
        return foreground, both


def _poisson(
    count: int, start: float, stop: float, grid: tuple[int, int], rng: np.random.Generator
) -> Events:
    """As many events, at any time of the window and on any pixel."""
    since = np.sort(rng.uniform(0, float(stop - start), count))
    # Added to what has the dtype of the recording, which may be whole microseconds.
    t = start + since.astype(np.asarray(start).dtype)
    t = t[t < stop]  # the sum may be rounded up
    count = len(t)
    y, x = (rng.integers(0, n, count, dtype=np.int32) for n in grid)
    return Events(t, x, y, rng.choice(np.array([-1, 1], np.int8), count))


def _mass(grid: np.ndarray) -> np.ndarray:
    """How much of each polarity a pixel of `grid` has: log(1 + mass), [2, height, width]."""
    return np.log1p(np.stack((np.maximum(grid, 0).sum(0), np.maximum(-grid, 0).sum(0))))


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """A batch.

    `events` [batch, bin, height, width] float32. Either `mask` [batch, height, width] int64 with
    `valid`, bool, which pixels count; or `mass` [batch, 2, height, width] float32 with `hidden`,
    bool, which pixels are hidden and count. `units`, how many of them; `meta`, a mapping each.
    """
    labels = torch.from_numpy(np.stack([sample.labels for sample in samples]))
    batch: dict[str, Any] = {
        "events": torch.from_numpy(np.stack([sample.events for sample in samples])),
        "meta": [sample.meta for sample in samples],
    }
    if samples[0].hidden is None:
        batch |= {"mask": labels, "valid": labels != IGNORE}
        return batch | {"units": int(batch["valid"].sum())}
    hidden = [sample.hidden for sample in samples if sample.hidden is not None]
    batch |= {"mass": labels, "hidden": torch.from_numpy(np.stack(hidden))}
    return batch | {"units": int(batch["hidden"].sum())}
