"""The events of a run: their rows on the step axis, and their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.report.plots import Mark, thinned
from launcher.report.run_record import RunRecord
from training.logging import console_text
from training.logging.quantities import duration, real

_ROWS: Mapping[str, Sequence[str]] = {
    "saves": ("saved",),
    "evaluations": ("evaluated", "best_loaded", "control"),
    "resumes": ("resumed", "requeued"),
    "throttling": (
        *("limit_exceeded_at_start", "limit_warning", "throttled", "relieved"),
        *("limit_given_up", "disk_filling", "pressure", "fewer_workers", "smaller_micro_batch"),
    ),
    "out of memory": ("out_of_memory",),
    "signals": ("signal", "deadline"),
    "warnings": ("warning", "advice", "skipped", "straggler"),
    "start and end": ("started", "stopped"),
}
"""Kinds of events by row; other kinds are in the last row."""
_ROW_OF = {kind: row for row, kinds in _ROWS.items() for kind in kinds}
_OTHER = "other"
MOST_EVENTS = 400
"""Events of a row on the step axis, and of the list."""


def marks(run: RunRecord, name: str = "") -> list[Mark]:
    """The events on the step axis, by row; `name` of the run stands before each text."""
    by_row: dict[str, list[Mark]] = {row: [] for row in [*_ROWS, _OTHER]}
    for event in shown(run):
        row = _ROW_OF.get(event["kind"], _OTHER)
        text = f"{name}: {text_of(event)}" if name else text_of(event)
        by_row[row].append(Mark(event["step"], row, text[:300], [*by_row].index(row)))
    return [mark for row in by_row.values() for mark in thinned(row, MOST_EVENTS)]


def rows(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Step, time and text of each event."""
    return [(str(event["step"]), event["time"], text_of(event)) for event in events]


def shown(run: RunRecord) -> list[Mapping[str, Any]]:
    """The events that a report lists: it shows others elsewhere, or not at all."""
    return [event for event in run.events if event["kind"] not in ("preview", "first_batch")]


def text_of(event: Mapping[str, Any]) -> str:
    """One event in a line, in the words of the console."""
    facts, kind = event["facts"], event["kind"]
    try:
        if kind == "evaluated":
            values = ", ".join(f"{name} {real(float(v))}" for name, v in facts["metrics"].items())
            best = ", the best so far" if facts["is_best"] else ""
            return f"evaluated: {values}{best} ({duration(facts['seconds'])})"
        if kind == "saved":
            return f"saved checkpoints/{facts['folder']}"
        if kind == "started":
            return f"started: steps {facts['first_step'] + 1:,} to {facts['total_steps']:,}"
        if kind == "stopped":
            return ": ".join(filter(None, (str(facts["status"]), str(facts["reason"] or ""))))
        if line := console_text.describe(kind, facts):
            text = line[1] if line[0] == console_text.WARNING else console_text.render_row(*line)
            return " ".join(text.split())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        pass  # of another version
    return " ".join([kind.replace("_", " "), *(f"{k}={value}" for k, value in facts.items())])
