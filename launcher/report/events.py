"""The events of a run: their rows on the step axis, and their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.report.plots import Mark, thinned
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
            *("limit_exceeded_at_start", "limit_warning", "throttled", "relieved"),
            *("limit_given_up", "disk_filling", "pressure", "fewer_workers"),
            "smaller_micro_batch",
        ),
    ),
    "out of memory": (5, ("out_of_memory",)),
    "signals": (4, ("signal", "deadline")),
    "warnings": (5, ("warning", "advice", "skipped", "straggler")),
    "start and end": (4, ("started", "stopped")),
}
"""Rows with their color and kinds of events; other kinds are in the last row."""
_OTHER = "other"
MOST_EVENTS = 400
"""Events of a row on the step axis, and of the list."""


def marks(run: RunRecord, name: str = "") -> list[Mark]:
    """The events on the step axis, by row; `name` of the run stands before each text."""
    by_row: dict[str, list[Mark]] = {row: [] for row in [*_LANES, _OTHER]}
    for event in shown(run):
        places = ((row, color) for row, (color, kinds) in _LANES.items() if event.kind in kinds)
        row, color = next(places, (_OTHER, 3))
        text = f"{name}: {text_of(event)}" if name else text_of(event)
        by_row[row].append(Mark(event.step, row, text[:300], color))
    return [mark for row in by_row.values() for mark in thinned(row, MOST_EVENTS)]


def rows(events: Sequence[RunEvent]) -> list[tuple[str, str, str]]:
    """Step, time and text of each event."""
    return [(str(event.step), event.time, text_of(event)) for event in events]


def shown(run: RunRecord) -> list[RunEvent]:
    """The events that a report lists: it shows others elsewhere, or not at all."""
    return [event for event in run.events if event.kind not in ("preview", "first_batch")]


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
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        pass  # of another version
    return " ".join([kind.replace("_", " "), *(f"{k}={value}" for k, value in facts.items())])
