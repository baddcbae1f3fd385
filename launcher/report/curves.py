"""The curves of one run, or of several runs in the same plots, and their events on the step axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launcher.report.page import Mark, Plot, PlotLine, Unit, as_json, thinned
from launcher.report.run_record import RunRecord
from training.logging import console_text
from training.logging.metrics import OF_PART
from training.logging.quantities import duration, real

_PREDICTED = "predicted_memory_bytes"
_STEP = "step_time_s"
_TIME = "_time_s"
_PERCENT = "_percent"
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


def drawn(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """All curves of `runs`, over steps, as JSON; events are those of all runs."""
    plots = [plot for plot in _all(runs) if any(line.points for line in plot.lines)]
    is_one = len(runs) == 1
    return as_json("step", plots, [m for run in runs for m in marks(run, "" if is_one else run.name)])


def _all(runs: Sequence[RunRecord]) -> Iterator[Plot]:
    is_one = len(runs) == 1
    evaluated = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    trained = list(dict.fromkeys(name for run in runs for name in run.train))

    def plot(title: str, unit: Unit, key: str) -> Plot:
        return Plot(title, unit, _lines(runs, [(title.lower(), key)]))

    parts = [(name.removeprefix("parts."), name) for name in trained if name.startswith("parts.")]
    lines = _lines(runs, [("loss", "loss"), *(parts if is_one else [])])
    losses = [(name, name) for name in evaluated if "loss" in name]
    yield Plot("Loss", "number", [*lines, *_lines(runs, losses, evaluations=True, after=len(lines))])
    # The metric that decides which checkpoint is best comes first.
    best = [(run.result.get("best") or {}).get("metric") for run in runs]
    for name in sorted(evaluated, key=lambda name: name not in best):
        if "loss" not in name:
            yield Plot(name, "number", _lines(runs, [(name, name)], evaluations=True))
    rates = [(name, name) for name in trained if name == "lr" or name.startswith(OF_PART)]
    yield Plot("Learning rate", "number", _lines(runs, rates[: None if is_one else 1]))
    yield plot("Gradient norm", "number", "grad_norm")
    yield plot("Samples per second", "per second", "samples_per_s")
    yield plot("Units per second", "per second", "tokens_per_s")
    times = [(label(n), n) for n in trained if n.endswith(_TIME) and n != _STEP]
    yield Plot("Seconds of a step", "seconds", _lines(runs, [("step", _STEP), *(times if is_one else [])]))
    for side in ("device", "host"):
        lines = _lines(runs, [(f"{side} memory", f"{side}_memory_bytes")])
        if is_one and lines:
            lines += _peaks(runs[0], side)
        yield Plot(f"Memory of the {side}", "bytes", lines)
    used = [(label(name), name) for name in trained if name.endswith(_PERCENT)]
    yield Plot("Use of the machine", "percent", _lines(runs, used))
    yield plot("Temperature in °C", "number", "temperature_celsius")
    yield plot("Loss scale", "number", "loss_scale")
    yield plot("Model FLOPs utilization", "number", "mfu")


def label(key: str) -> str:
    """A key of metrics.jsonl for people: `data_time_s` is data, `ram_percent` ram."""
    return key.removesuffix(_TIME).removesuffix(_PERCENT).replace("_", " ")


def _lines(
    runs: Sequence[RunRecord], named: Sequence[tuple[str, str]], *, evaluations: bool = False, after: int = 0
) -> list[PlotLine]:
    """A line for each run and each of the keys that are `named`; colors tell the runs apart.

    `after`: how many lines are in the plot already; of several runs, those below are dashed.
    """
    lines = []
    is_one = len(runs) == 1
    for at, run in enumerate(runs):
        for number, (name, key) in enumerate(named):
            if points := (run.evaluations if evaluations else run.train).get(key):
                several = f"{run.name}, {name}" if after or named[1:] else run.name
                color = after + number if is_one else at
                lines.append(PlotLine(name if is_one else several, points, color, not is_one and after > 0))
    return lines


def _peaks(run: RunRecord, side: str) -> Iterator[PlotLine]:
    """The predicted and the measured peak, from the first to the last logged step."""
    steps = [points[at][0] for points in run.train.values() for at in (0, -1)]
    for name, key, color in (("predicted", _PREDICTED, 1), ("measured", "peak_memory_bytes", 3)):
        if (peak := (run.result.get(key) or {}).get(side)) is not None:
            yield PlotLine(f"{name} peak", [(min(steps), peak), (max(steps), peak)], color, dashed=True)


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
