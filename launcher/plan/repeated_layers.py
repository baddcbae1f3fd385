"""The trace of a deep model, from those of its first layers: equal layers do the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gearshift.launcher.plan.step_trace import StepTrace
from gearshift.launcher.plan.storages import Moments
from gearshift.models.base import HasLayers, Task

TRACED = (2, 3, 4)
"""Layers of the models that are traced instead. What the third layer adds is repeated; the fourth
shows whether that is what one more layer does."""
_SMALL_BYTES = 1024
_ALIKE = 2
"""Cost of a row with another number in its place; that of a run of inserted rows is 1."""
_NUMBERS = (
    "weight_bytes",
    "slot_bytes",
    "flops",
    "launches",
    "sent",
    "quantized",
    "buffer_bytes",
    "offloaded",
    "checkpoint_bytes",
)
"""The fields of a trace that grow with each layer alike."""


def trace_layers(
    task: Task,
    sizes: Callable[[], Sequence[int]],
    trace: Callable[[Task], StepTrace],
) -> StepTrace | None:
    """The trace of `task` from those of the first layers of its model, which `trace` gives.

    None: its layers differ, or there are few. `sizes`: of the parameters of the whole model.
    """
    if not isinstance(task, HasLayers):
        return None
    count = task.num_layers()
    if count is None or count <= sum(TRACED):
        return None
    short, longer, longest = (trace(task.shortened(layers)) for layers in TRACED)
    expected = repeat_layer(short, longer, 2)
    if expected is None or not _are_equal(expected, longest):
        return None
    whole = repeat_layer(short, longer, count - TRACED[0])
    if whole is None or list(whole.sizes) != list(sizes()):
        return None
    return whole


def repeat_layer(
    short: StepTrace,
    longer: StepTrace,
    times: int,
) -> StepTrace | None:
    """`short` with what `longer`, of one more layer, does beside it, so many `times`.

    None: it does not only add to it.
    """
    changes = _repeat(
        _changes(short.moments),
        _changes(longer.moments),
        times,
    )
    sizes = _repeat_sizes(short.sizes, longer.sizes, times)
    groups = []
    for group, longer_group in zip(short.groups, longer.groups, strict=True):
        group_sizes = _repeat_sizes(group, longer_group, times)
        if group_sizes is not None:
            groups.append(group_sizes)
    if changes is None or sizes is None or len(groups) < len(short.groups):
        return None
    numbers = {}
    for name in _NUMBERS:
        number = getattr(short, name)
        numbers[name] = number + times * (getattr(longer, name) - number)
    sums = changes[:, 1:].cumsum(0)
    moments = Moments(changes[:, 0], sums[:, :-1], sums[:, -1])
    return replace(
        short,
        moments=moments,
        sizes=sizes,
        groups=groups,
        **numbers,
    )


def _changes(moments: Moments) -> np.ndarray:
    """The phase of each moment, and how its numbers differ from those before [moment, column].

    Without those of single numbers, such as norms. Releases one after the other are sorted:
    autocast frees its copies in the order of a hash table.
    """
    held = np.diff(moments.held, axis=0, prepend=0)
    computed = np.diff(moments.computed, prepend=0)
    rows = np.column_stack([moments.phase, held, computed])
    held_changes = rows[:, 1:-1]
    held_changes[abs(held_changes) < _SMALL_BYTES] = 0
    rows = rows[rows[:, 1:].any(1)]
    is_release = (rows[:, 1:] <= 0).all(1)
    run = np.cumsum(np.append(True, ~(is_release[1:] & is_release[:-1])))
    return rows[np.lexsort([*rows.T, run])]


def _repeat_sizes(
    short: Sequence[int],
    longer: Sequence[int],
    times: int,
) -> list[int] | None:
    columns = []
    for sizes in (short, longer):
        columns.append(np.array(sizes, np.int64).reshape(-1, 1))
    repeated = _repeat(*columns, times)
    return None if repeated is None else repeated[:, 0].tolist()


def _repeat(
    short: np.ndarray,
    longer: np.ndarray,
    times: int,
) -> np.ndarray | None:
    """The rows of `short`, with each run of rows that `longer` has between them so many `times`.

    A row with another number in `longer`, such as a tensor of one number a parameter, grows alike.
    None: a row of `short` is missing in `longer`.
    """
    is_inserted = _inserted(short, longer)
    if is_inserted is None:
        return None
    rows = longer.copy()
    rows[~is_inserted] = short + times * (longer[~is_inserted] - short)
    starts = np.flatnonzero(np.diff(is_inserted)) + 1
    pieces = []
    for run, inserted in zip(np.split(rows, starts), np.split(is_inserted, starts), strict=True):
        pieces += [run] * (times if inserted[:1].any() else 1)
    return np.concatenate(pieces)


def _inserted(short: np.ndarray, longer: np.ndarray) -> np.ndarray | None:
    """Which rows of `longer` are not those of `short`, in the fewest runs; None: others miss.

    The costs of the best way to come to each row of `longer`, by the rows inserted so far:
    Needleman and Wunsch, 1970, without deletions.
    """
    most = len(longer) - len(short)
    if most < 0:
        return None
    equal = _Tokens(short, longer, most)
    signs = np.sign([*short, *longer]).reshape(-1, longer.shape[1])
    alike = _Tokens(signs[: len(short)], signs[len(short) :], most)
    kept = np.full(most + 1, np.inf)
    kept[0] = 0
    inserted = np.full(most + 1, np.inf)
    ways = []
    for row in range(len(longer)):
        cost = np.where(equal.at(row), 0, np.where(alike.at(row), _ALIKE, np.inf))
        ways.append((inserted < kept, inserted <= kept + 1))
        follows = np.minimum(inserted, kept + 1)
        kept = np.minimum(kept, inserted) + cost
        inserted = np.append(np.inf, follows[:-1])

    count = most
    is_inserted = bool(inserted[count] < kept[count])
    if np.isinf(min(inserted[count], kept[count])):
        return None
    rows = []
    for from_kept, from_inserted in reversed(ways):
        rows.append(is_inserted)
        if is_inserted:
            count -= 1
        is_inserted = bool((from_inserted if is_inserted else from_kept)[count])
    return np.array(rows[::-1], bool)


class _Tokens:
    """Compares a row of `longer` with those rows of `short` that may be in its place."""

    def __init__(
        self,
        short: np.ndarray,
        longer: np.ndarray,
        most: int,
    ) -> None:
        _, numbers = np.unique(np.concatenate([short, longer]), axis=0, return_inverse=True)
        numbers = numbers.reshape(-1)
        self._longer = numbers[len(short) :]
        self._short = np.pad(numbers[: len(short)], most, constant_values=-1)
        self._most = most

    def at(self, row: int) -> np.ndarray:
        """Whether they are equal, by the number of rows that are inserted before."""
        places = self._short[row : row + self._most + 1]
        return places[::-1] == self._longer[row]


def _are_equal(trace: StepTrace, other: StepTrace) -> bool:
    same_changes = np.array_equal(_changes(trace.moments), _changes(other.moments))
    return same_changes and replace(trace, moments=other.moments) == other
