"""Which windows train, validate and test: other recordings, or other times of few recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.base import DataError, SplitName
from models.common.split import SPLITS, split_groups
from models.event_seg.readers.recording import Recording

GROUPS = "recordings"
GAP_S = 1.0
"""Seconds of a recording between two parts that learn and judge."""
_LONG = 20
"""A recording of so many gaps gives them up; a shorter one gives a window each."""


@dataclass(frozen=True)
class Parts:
    """The windows of each split."""

    groups: dict[SplitName, list[str]]
    """Recordings, or pieces of them."""
    windows: dict[SplitName, np.ndarray]
    """[window, 2]: number of the recording, number of its window."""
    told: str
    """How it was split, for the person."""


def split_recordings(
    recordings: Sequence[Recording],
    fraction: float,
    share: float,
    seed: int,
    earlier: Mapping[str, SplitName] | None = None,
) -> Parts:
    """By recording; where fewer than three are used, each of them by time. Raises DataError.

    `earlier` as for split_groups.
    """
    used = max(1, round(fraction * len(recordings)))
    if used < 3:
        order = np.random.default_rng(seed).permutation(len(recordings))[:used]
        return _by_time(recordings, sorted(order.tolist()), share)
    names = [recording.name for recording in recordings]
    groups = split_groups(names, fraction, share, seed, GROUPS, earlier)
    numbers = {name: number for number, name in enumerate(names)}
    windows = {
        name: _joined(
            (numbers[group], np.arange(len(recordings[numbers[group]].windows))) for group in held
        )
        for name, held in groups.items()
    }
    return Parts(groups, windows, "by recording")


def _by_time(recordings: Sequence[Recording], used: list[int], share: float) -> Parts:
    """The first windows train, then come those that validate, then those that test."""
    groups: dict[SplitName, list[str]] = {name: [] for name in SPLITS}
    pieces: dict[SplitName, list[tuple[int, np.ndarray]]] = {name: [] for name in SPLITS}
    told = []
    for number in used:
        recording = recordings[number]
        blocks, gap = _blocks(recording, share)
        told.append(f"gap of {gap}")
        for name, block in blocks.items():
            start, stop = recording.windows[block[0], 0], recording.windows[block[-1], 1]
            groups[name].append(f"{recording.name} from {start} to {stop}")
            pieces[name].append((number, block))
    windows = {name: _joined(pieces[name]) for name in SPLITS}
    return Parts(groups, windows, f"by time, for there are fewer than 3 recordings; {told[0]}")


def _blocks(recording: Recording, share: float) -> tuple[dict[SplitName, np.ndarray], str]:
    """Three blocks of windows and what lies between them."""
    starts, stops = recording.windows.T
    count, duration = len(starts), (stops[-1] - starts[0]) / recording.second
    held = max(1, int(share * count + 1e-9))
    first_test = count - held
    gap, told = 0.0, "1 window"
    if duration >= _LONG * GAP_S:
        gap, told = GAP_S * recording.second, f"{GAP_S:g} s"
    last_val = _before(stops, starts[first_test], gap)
    first_val = last_val - held + 1
    last_train = _before(stops, starts[max(0, first_val)], gap) if first_val > 0 else -1
    if last_train < 0:
        raise DataError(
            f"'{recording.name}' is too short to be split by time: {count} windows in "
            f"{duration:.3g} s, of which eval.share {share:g} is held out twice",
            where="data.path, data.window_ms, eval.share",
            allowed="a window each for train, val and test, and one between them",
            fix="more recordings, shorter windows, or a smaller eval.share",
        )
    return {
        "train": np.arange(last_train + 1),
        "val": np.arange(first_val, last_val + 1),
        "test": np.arange(first_test, count),
    }, told


def _before(stops: np.ndarray, start: float, gap: float) -> int:
    """The last window that ends `gap` before `start`, with a window between them at least."""
    by_time = int(np.searchsorted(stops, start - gap, side="right")) - 1
    return min(by_time, int(np.searchsorted(stops, start, side="right")) - 2)


def _joined(pieces) -> np.ndarray:  # type: ignore[no-untyped-def]
    rows = [np.stack((np.full(len(block), number), block), axis=1) for number, block in pieces]
    return np.concatenate(rows) if rows else np.empty((0, 2), np.int64)
