"""Compares the traces of two replays, entry by entry, up to the first one that differs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearshift.training.checkpoint.compare import NOISE, Tolerance
from gearshift.training.checkpoint.tensor_file import BUFFER, WEIGHT
from gearshift.training.trace import (
    GRADIENT,
    LOSS,
    OF_SPLIT,
    OF_STATE,
    OPTIMIZER,
    OPTION,
    OUTPUT,
    SAMPLE,
    added,
    distance,
    norm,
)

_FORWARD = "forward"
_PHASES = (_FORWARD, GRADIENT, OPTION, OPTIMIZER, WEIGHT, BUFFER)
"""The order of a step after its samples."""
_STATE = (WEIGHT, BUFFER, OPTIMIZER)
"""The order of the state before it."""
_FIRST_MOMENTS = ("exp_avg of ", "momentum_buffer of ", "variance of ", "row_var of ")
Key = tuple[str, str, int]
"""Kind, name, and which of several entries of that name."""
Entries = dict[Key, Any]


@dataclass(frozen=True)
class TraceDifference:
    """The first entry that differs."""

    step: int
    """0: the state before the first step."""
    kind: str
    name: str
    index: int | None = None
    """Of a sample."""
    a: Any = None
    b: Any = None
    relative: float | None = None
    """Of a tensor: about the norm of the difference over the larger norm of the two."""


@dataclass(frozen=True)
class TraceComparison:
    first: TraceDifference | None
    """The first difference above the tolerance."""
    rounding: TraceDifference | None
    """The first one before it, within the tolerance."""


@dataclass(frozen=True)
class _Step:
    number: int
    samples: Sequence[tuple[str, str]]
    """Index and digest."""
    entries: Entries


def compare_traces(
    first: Path, second: Path, tolerance: Tolerance | None, *, after: int = 0, same_split: bool
) -> TraceComparison:
    """Compare the steps that both traces have, from the state after step `after` on.

    Without `tolerance`, bit by bit. `same_split`: both divide a batch into the same micro-batches.
    Reads the disk.
    """
    rounding = None
    noise: set[str] = set()
    others = {step.number: step for step in _steps(second)}
    is_start = True
    for step in _steps(first):
        other = others.get(step.number)
        if other is None or step.number < after:
            continue
        bound = None if is_start else tolerance
        is_start = False
        difference = _samples(step, other, same_split)
        if difference is None:
            if bound is not None:
                noise |= _without_gradient(step)
            difference, small = _entries(step, other, bound, noise, same_split)
            rounding = rounding or small
        if difference is not None:
            return TraceComparison(difference, rounding)
    return TraceComparison(None, rounding)


def _samples(step: _Step, other: _Step, same_split: bool) -> TraceDifference | None:
    for (index, digest), (other_index, other_digest) in zip(
        step.samples, other.samples, strict=False
    ):
        if index != other_index:
            name = "index"
            return TraceDifference(
                step.number, SAMPLE, name, int(index), int(index), int(other_index)
            )
        if same_split and digest != other_digest:
            return TraceDifference(step.number, SAMPLE, "content", int(index))
    return None


def _entries(
    step: _Step, other: _Step, tolerance: Tolerance | None, noise: set[str], same_split: bool
) -> tuple[TraceDifference | None, TraceDifference | None]:
    """The first difference above the tolerance, and the first one before it."""
    mine = _comparable(step, other, same_split)
    theirs = _comparable(other, step, same_split)
    extra = next((key for key in theirs if key not in mine), None)
    before = _before(theirs, extra)
    rounding = None
    if extra is not None and before is None:
        return TraceDifference(step.number, extra[0], extra[1]), None
    for key, value in mine.items():
        kind, name, _ = key
        if key not in theirs:
            return TraceDifference(step.number, kind, name), rounding
        difference = _difference(step.number, key, value, theirs[key])
        if difference is not None:
            is_small = difference.relative is not None and tolerance is not None
            if is_small and name.rpartition(" of ")[2] in noise:
                continue
            if is_small and _is_within(difference, tolerance):
                rounding = rounding or difference
                continue
            return difference, rounding
        if key == before and extra is not None:
            return TraceDifference(step.number, extra[0], extra[1]), rounding
    return None, rounding


def _before(entries: Entries, key: Key | None) -> Key | None:
    keys = list(entries)
    at = keys.index(key) if key is not None else 0
    return keys[at - 1] if at else None


def _comparable(step: _Step, other: _Step, same_split: bool) -> Entries:
    """The entries of kinds that both have; those of the forward passes only of the same split."""
    kinds = {kind for kind, _, _ in other.entries}
    if not same_split:
        kinds -= {*OF_SPLIT, "draw"}
    return {key: value for key, value in step.entries.items() if key[0] in kinds}


def _difference(step: int, key: Key, value: Any, other: Any) -> TraceDifference | None:
    kind, name, _ = key
    if value == other or json.dumps(value) == json.dumps(other):  # equal NaNs are equal
        return None
    if not isinstance(value, list) or kind == OPTION:
        return TraceDifference(step, kind, name, None, value, other)
    slot = next((slot for slot in _FIRST_MOMENTS if name.startswith(slot)), None)
    if slot is not None and step:
        # Where shards hide gradients: the first moment is the sum of them.
        kind = GRADIENT
        name = name.removeprefix(slot)
    return TraceDifference(step, kind, name, relative=distance(value, other))


def _is_within(difference: TraceDifference, tolerance: Tolerance | None) -> bool:
    assert tolerance is not None and difference.relative is not None
    kind = WEIGHT if difference.kind in (OUTPUT, LOSS) else difference.kind
    return difference.relative <= tolerance.of(kind)


def _without_gradient(step: _Step) -> set[str]:
    """The parameters whose gradients are rounding only."""
    sizes = {}
    for (kind, name, _), value in step.entries.items():
        if kind == GRADIENT or (kind == OPTIMIZER and name.startswith(_FIRST_MOMENTS)):
            sizes[name.rpartition(" of ")[2]] = norm(value[2:])
    largest = max(sizes.values(), default=0.0)
    return {name for name, size in sizes.items() if size < NOISE * largest}


def _steps(folder: Path) -> Iterator[_Step]:
    """The steps of a trace, the files of its ranks merged."""
    paths = sorted(folder.glob("*.jsonl"), key=lambda path: int(path.stem))
    with ExitStack() as files:
        streams = [files.enter_context(path.open(encoding="utf-8")) for path in paths]
        for number, lines in enumerate(zip(*streams, strict=False)):
            yield _merged([json.loads(line) for line in lines], is_start=number == 0)


def _merged(ranks: Sequence[Any], *, is_start: bool) -> _Step:
    samples: list[tuple[str, str]] = []
    phases: dict[str, Entries] = {phase: {} for phase in _PHASES}
    for rank, line in enumerate(ranks):
        counts: Counter[tuple[str, str]] = Counter()
        for kind, name, value in line["entries"]:
            if kind == SAMPLE:
                samples.append((name, value))
                continue
            phase = phases[kind if kind in phases else _FORWARD]
            if kind in OF_STATE:
                key = (kind, name, 0)
                phase[key] = added(phase[key], value) if key in phase else value
                continue
            if phase is phases[_FORWARD] and len(ranks) > 1:
                name = f"{name} on rank {rank}".lstrip()
            elif rank > 0:
                continue
            phase[kind, name, counts[kind, name]] = value
            counts[kind, name] += 1
    entries: Entries = {}
    for phase_name in _STATE if is_start else _PHASES:
        entries |= phases[phase_name]
    return _Step(ranks[0]["step"], samples, entries)
