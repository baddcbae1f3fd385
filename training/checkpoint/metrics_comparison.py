"""Comparison of the metrics that two runs logged for the same steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint.compare import Difference, Tolerance, number_differs

_TRAIN = ("loss", "grad_norm", "lr", "samples", "tokens", "epoch", "parts", "loss_scale")
"""Numbers that do not depend on machine and time."""
_TRAINING, _EVAL = "0", "1"
"""Keys that sort the lines of a step."""
_NEAR = ("loss", "grad_norm", "lr", "samples", "tokens")
"""Numbers that other engines reproduce to rounding; loss scale and parts may differ."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing the lines of two runs."""

    lines: int
    """Lines that both runs have, and that were compared."""
    first: Difference | None
    is_missing: bool = False
    """None of the lines that the other run logged is among those of the first run; the line of
    the other run's first step does not count."""


def compare(
    one: Path, other: Path, after: int, upto: int, tolerance: Tolerance | None = None
) -> Comparison:
    """Compare the common lines of two metrics.jsonl in the steps (`after`, `upto`]. Reads the disk.

    Without `tolerance` all numbers except times, memory and throughput are compared bit by bit.
    With one, numbers of training lines may differ by it, relatively, and evaluations are left out:
    a last bit may change a count of right answers. A run also logs the first step after a start, so
    each run may have lines that the other lacks. A missing file counts as 0 lines.
    """
    ours, theirs = (_lines(path, after, upto, tolerance is None) for path in (one, other))
    both = [key for key in sorted(ours) if key in theirs]
    for key in both:
        for difference in _differences(ours[key], theirs[key], tolerance):
            return Comparison(len(both), difference)
    logged = [key for key in theirs if key[0] > after + 1 or key[1] == _EVAL]
    return Comparison(len(both), None, is_missing=bool(logged) and not both)


def _lines(
    path: Path, after: int, upto: int, with_evaluations: bool
) -> dict[tuple[int, str, str], Line]:
    """The lines of those steps; the later of two lines of one step: the run had gone back."""
    kinds = ("train", "eval") if with_evaluations else ("train",)
    found: dict[tuple[int, str, str], Line] = {}
    for line in _read(path):
        step, kind = line.get("step"), line.get("kind")
        if kind in kinds and isinstance(step, int) and after < step <= upto:
            # At one step, training comes before evaluation.
            found[step, _EVAL if kind == "eval" else _TRAINING, str(line.get("split", ""))] = line
    return found


def _read(path: Path) -> Iterator[Line]:
    """Each complete line: a killed process may have left half of the last one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _differences(one: Line, other: Line, tolerance: Tolerance | None) -> Iterator[Difference]:
    kind, step = str(one["kind"]), int(one["step"])
    for key, ours, theirs in _numbers(one, other, _TRAIN if tolerance is None else _NEAR):
        within = None
        if tolerance is not None:
            within = tolerance.moments if key == "grad_norm" else tolerance.weights
        if number_differs(ours, theirs, within):
            yield Difference(kind, key, None, ours, theirs, step)


def _numbers(one: Line, other: Line, keys: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    if one["kind"] == "eval":
        keys = ("metrics",)
    for key in keys:
        ours, theirs = one.get(key), other.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            for name in {**ours, **theirs}:
                yield f"{key}.{name}", ours.get(name), theirs.get(name)
        else:
            yield key, ours, theirs
