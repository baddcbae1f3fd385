"""How many events a second become a voxel grid, compared with Tonic's function?

    python -m benchmarks.voxels

One window of random events, ten bins, the sensor of MVSEC, one core. Tonic (extra `bench`) is left
out where it is not installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import command, machine, rows, save, table
from models.event_seg.config import BINS
from models.event_seg.readers.recording import Events
from models.event_seg.windows import voxelize

PACKAGES = ("numpy", "tonic")
SENSOR = 260, 346
WINDOW_US = 33_333


def events_of(count: int) -> Events:
    """Events anywhere on the sensor, in order of time, as a reader gives them."""
    rng = np.random.default_rng(0)
    y, x = (rng.integers(0, n, count).astype(np.int32) for n in SENSOR)
    p = rng.choice(np.array([-1, 1], np.int8), count)
    return Events(np.sort(rng.integers(0, WINDOW_US, count)), x, y, p)


def contenders(events: Events) -> dict[str, Callable[[], Any]]:
    """The functions that build a grid of `events`, by name."""
    found = {"ours": lambda: voxelize(events, 0, WINDOW_US, (BINS, *SENSOR))}
    try:
        from tonic.functional import to_voxel_grid_numpy
    except ImportError:
        return found
    kinds = [("t", "i8"), ("x", "i4"), ("y", "i4"), ("p", "i1")]
    theirs = np.zeros(len(events), kinds)
    for name, _ in kinds:
        theirs[name] = getattr(events, name)
    size = (SENSOR[1], SENSOR[0], 2)
    return {"Tonic": lambda: to_voxel_grid_numpy(theirs, size, BINS), **found}


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    running = contenders(events_of(options.events))
    measured = []
    for number in range(-1, options.rounds):  # round -1 warms up, thrown away
        seconds = {}
        for name, work in running.items():
            begin = time.perf_counter()
            work()
            seconds[name] = time.perf_counter() - begin
        measured += [seconds] if number >= 0 else []
    result = rows(measured, next(iter(running)))

    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(table(result, unit=f"ms for {options.events:,} events"))
    for row in result:
        print(f"{row.name}: {options.events / row.median_ms / 1e3:.1f} million events a second")
    save(options.json, command("voxels", sys.argv[1:]), facts, {"voxels": result})


if __name__ == "__main__":
    main()
