"""The events of a run: their rows on the step axis, and their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from launcher.report.plots import Mark
from launcher.report.run_record import RunEvent, RunRecord
from training.logging import console_text
from training.logging.quantities import duration, real

_LANES: Mapping[str, tuple[int, Sequence[str]]] = {
    "saves": (2, ("saved",)),
    "evaluations": (0, ("evaluated", "best_loaded", "control")),
    "resumes": (3, ("resumed", "requeued")),
    "throttling": (
        1,
        (
            *("limit_exceeded_at_start", "limit_warning", "throttled", "relieved", "settled"),
            *("limit_given_up", "disk_filling", "pressure", "fewer_workers"),
            "smaller_micro_batch",
        ),
    ),
    "out of memory": (5, ("out_of_memory",)),
    "signals": (4, ("signal", "deadline")),
    "warnings": (5, ("warning", "advice", "skipped", "straggler", "straggler_gone")),
    "start and end": (4, ("started", "stopped")),
}
"""Rows with their color and kinds of events; other kinds are in the last row."""
_OTHER = "other"
_ELSEWHERE = ("preview", "first_batch")
"""Kinds that the report shows elsewhere, or not at all."""
_LONGEST = 300
"""Characters of a text on the step axis."""
MOST_EVENTS = 400
"""Events of a row on the step axis, and of the list."""
_Any = TypeVar("_Any")
_INVALID = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""Raised for an event of another version."""


def lane(kind: str) -> tuple[str, int]:
    """The row of a kind of events, and its color."""
    for name, (color, kinds) in _LANES.items():
        if kind in kinds:
            return name, color
    return _OTHER, 3


def marks(run: RunRecord, name: str = "") -> list[Mark]:
    """The events on the step axis, by row; `name` of the run stands before each text."""
    order = [*_LANES, _OTHER]
    every_mark = []
    for event in shown(run):
        row, color = lane(event.kind)
        text = f"{name}: {text_of(event)}" if name else text_of(event)
        every_mark.append(Mark(event.step, row, text[:_LONGEST], color))
    rows = {row: [mark for mark in every_mark if mark.lane == row] for row in order}
    return [mark for row in rows.values() for mark in thinned(row)]


def thinned(items: Sequence[_Any]) -> Sequence[_Any]:
    """At most MOST_EVENTS of many, evenly, with the first and the last."""
    if len(items) <= MOST_EVENTS:
        return items
    return [items[at * (len(items) - 1) // (MOST_EVENTS - 1)] for at in range(MOST_EVENTS)]


def shown(run: RunRecord) -> list[RunEvent]:
    """The events that a report lists."""
    return [event for event in run.events if event.kind not in _ELSEWHERE]


def text_of(event: RunEvent) -> str:
    """One event in a line, in the words of the console."""
    facts, kind = event.facts, event.kind
    try:
        if kind == "evaluated":
            values = ", ".join(f"{name} {real(float(v))}" for name, v in facts["metrics"].items())
            best = ", the best so far" if facts["is_best"] else ""
            return f"evaluated: {values}{best} ({duration(facts['seconds'])})"
        if kind == "saved":
            return f"saved checkpoints/{facts['folder']}"
        if kind == "started":
            before = f", {facts['first_step']:,} done before" if facts["first_step"] else ""
            return f"started: {facts['total_steps']:,} steps{before}"
        if kind == "stopped":
            return ": ".join(filter(None, (str(facts["status"]), str(facts["reason"] or ""))))
        text = console_text.render_urgent(kind, facts) or console_text.render_notice(kind, facts)
        if text:
            return " ".join(text.split())
    except _INVALID:
        pass
    return " ".join([kind.replace("_", " "), *_pairs(facts)])


def _pairs(facts: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in facts.items()]
