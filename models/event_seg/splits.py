"""Choice of recordings by name, and splits of windows by recording or time."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common.data_reports import listed
from gearshift.models.common.split import SPLITS, SplitRule, held_out, split_groups
from gearshift.models.event_seg.readers.recording import EventRecording

_ENDING = "_data"
"""End of the file name of an MVSEC sequence."""
_LISTED = 30
"""Maximum number of names in an error."""


def choose(
    paths: Sequence[str],
    names: Sequence[str],
    preferred: str | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """The recordings among `paths` that `names` lists, in the order of `paths`, and why, as facts.

    A name is that of a sequence, a file or a path. Without names the one of the `preferred`
    sequence, or else the first; without that, too, all. Raises DataError if a name has no recording
    or several.
    """
    if names:
        chosen = sorted({_find(paths, name) for name in names}, key=paths.index)
        reason = "data.sequences"
    elif preferred is not None:
        hits = [path for path in paths if preferred in _names(path)]
        chosen = [*hits, *paths][:1]
        reason = f"data.mvsec_sequence {preferred}, otherwise the first"
    else:
        return list(paths), {}
    text = f"{len(chosen)} of {len(paths)}: {', '.join(chosen)} ({reason})"
    return chosen, {"sequences": text}


def _names(path: str) -> tuple[str, ...]:
    """All names of a recording, the shortest first."""
    file = PurePosixPath(path)
    return file.stem.removesuffix(_ENDING), file.stem, file.name, path


def _find(
    paths: Sequence[str],
    name: str,
) -> str:
    if name in paths:
        return name
    hits = [path for path in paths if name in _names(path)]
    if len(hits) == 1:
        return hits[0]
    options = hits or paths
    closest = get_close_matches(name, options, n=1, cutoff=0.0)[0]
    raise DataError(
        f"{len(hits)} recordings are called '{name}'",
        where="data.sequences",
        allowed=listed(options, _LISTED),
        did_you_mean=closest,
        fix=f"--set 'data.sequences=[{closest}]'",
    )


GROUPS = "recordings"
GAP_S = 1.0
"""Seconds between two splits of one recording."""
_LONG = 20
"""Gaps that a recording must contain to use GAP_S; a shorter one uses a gap of one window."""


def split_recordings(
    recordings: Sequence[EventRecording],
    rule: SplitRule,
) -> tuple[Groups, dict[SplitName, ndarray], str]:
    """Split by recording; if fewer than three are used, split each by time. Raises DataError.

    The recordings of each split, or time ranges of them; its windows [window, 2], the number of a
    recording and of its window; and how the data was split.
    """
    method = "by recording"
    groups: dict[SplitName, list[str]] = {side: [] for side in SPLITS}
    windows: dict[SplitName, list[tuple[int, int]]] = {side: [] for side in SPLITS}
    names = [recording.name for recording in recordings]
    count = max(1, round(rule.fraction * len(names)))
    # Each split needs a recording of its own.
    if count >= 3:
        for side, chosen in split_groups(names, rule, GROUPS).items():
            groups[side] += chosen
            for number in map(names.index, chosen):
                windows[side] += [(number, i) for i in range(len(recordings[number].windows))]
    else:
        rule.refuse_fold("fewer than 3 recordings are split by time", hint="use more recordings")
        order = np.random.default_rng(rule.seed).permutation(len(names))
        for number in sorted(order[:count].tolist()):
            limits = recordings[number].windows
            blocks, gap = _blocks(recordings[number], rule.share)
            method = f"by time (fewer than 3 recordings); gap of {gap}"
            for side, block in blocks.items():
                span = f"from {limits[block[0], 0]} to {limits[block[-1], 1]}"
                groups[side].append(f"{names[number]} {span}")
                windows[side] += [(number, i) for i in block]
    return groups, {side: np.array(pairs) for side, pairs in windows.items()}, method


def _blocks(
    recording: EventRecording,
    share: float,
) -> tuple[dict[SplitName, range], str]:
    """Three blocks of windows, and a description of the gap between them."""
    starts, stops = recording.windows.T
    count = len(starts)
    duration = (stops[-1] - starts[0]) / recording.second
    size = held_out(count, share)
    first_test = count - size
    gap = 0.0
    if duration >= _LONG * GAP_S:
        gap = GAP_S * recording.second
    last_val = _before(stops, starts[first_test], gap)
    first_val = max(0, last_val - size + 1)
    last_train = _before(stops, starts[first_val], gap)
    if last_train < 0:
        raise DataError(
            f"'{recording.name}' is too short to split by time: {count} windows in "
            f"{duration:.3g} s with eval.share={share:g}",
            where="data.path, data.window_ms, eval.share",
            allowed="at least one window each for train, val and test, and one between them",
            hint="add recordings, or use shorter windows or a smaller eval.share",
        )
    blocks: dict[SplitName, range] = {
        "train": range(last_train + 1),
        "val": range(first_val, last_val + 1),
        "test": range(first_test, count),
    }
    return blocks, f"{GAP_S:g} s" if gap else "1 window"


def _before(
    stops: ndarray,
    start: float,
    gap: float,
) -> int:
    """Last window that ends `gap` before `start`, with at least one window between them."""
    ends_before_gap = np.searchsorted(stops, start - gap, side="right")
    ends_before = np.searchsorted(stops, start, side="right")
    return int(min(ends_before_gap - 1, ends_before - 2))
