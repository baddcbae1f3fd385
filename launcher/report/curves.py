"""The curves of one run, or of several runs in the same plots, and their events on the step axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gearshift.launcher.report.page import PlotLine, Unit, as_json, plot, thinned
from gearshift.launcher.report.run_record import RunRecord
from gearshift.training.logging import console_text
from gearshift.training.logging.metrics import OF_PART
from gearshift.training.logging.quantities import duration, real

_PREDICTED = "predicted_memory_bytes"
_STEP = "step_time_s"
_TIME = "_time_s"
_PERCENT = "_percent"
_PART = "parts."
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
    plots = [plot(title, unit, lines) for title, unit, lines in _all(runs) if lines]
    return as_json(
        "step", plots, [mark for run in runs for mark in marks(run, run.name if runs[1:] else "")]
    )


def _all(runs: Sequence[RunRecord]) -> Iterator[tuple[str, Unit, list[PlotLine]]]:
    """Title, unit and lines of each plot. Colors tell several runs apart."""
    is_one = len(runs) == 1
    evaluated = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    trained = list(dict.fromkeys(name for run in runs for name in run.train))

    def lines(
        names: Mapping[str, str], evaluations: bool = False, after: int = 0
    ) -> list[PlotLine]:
        """A line for each run and each of the keys that are named, below the `after` lines of the plot."""
        drawn = []
        for at, run in enumerate(runs):
            for number, (key, name) in enumerate(names.items()):
                if points := (run.evaluations if evaluations else run.train).get(key):
                    several = f"{run.name}, {name}" if after or len(names) > 1 else run.name
                    color = after + number if is_one else at
                    drawn.append(
                        PlotLine(
                            name if is_one else several, points, color, not is_one and after > 0
                        )
                    )
        return drawn

    def plain(title: str, unit: Unit, key: str) -> tuple[str, Unit, list[PlotLine]]:
        return title, unit, lines({key: title.lower()})

    parts = {name: name.removeprefix(_PART) for name in trained if name.startswith(_PART)}
    first = lines({"loss": "loss", **(parts if is_one else {})})
    losses = {name: name for name in evaluated if "loss" in name}
    yield "Loss", "number", first + lines(losses, evaluations=True, after=len(first))
    # The metric that decides which checkpoint is best comes first.
    best = [(run.result.get("best") or {}).get("metric") for run in runs]
    for name in sorted(evaluated, key=lambda name: name not in best):
        if "loss" not in name:
            yield name, "number", lines({name: name}, evaluations=True)
    rates = [name for name in trained if name == "lr" or name.startswith(OF_PART)]
    yield "Learning rate", "number", lines({name: name for name in rates[: None if is_one else 1]})
    yield plain("Gradient norm", "number", "grad_norm")
    yield plain("Samples per second", "per second", "samples_per_s")
    yield plain("Units per second", "per second", "tokens_per_s")
    times = {name: label(name) for name in trained if name.endswith(_TIME) and name != _STEP}
    yield "Seconds of a step", "seconds", lines({_STEP: "step", **(times if is_one else {})})
    for side in ("device", "host"):
        memory = lines({f"{side}_memory_bytes": f"{side} memory"})
        peaks = _peaks(runs[0], side) if is_one and memory else ()
        yield f"Memory of the {side}", "bytes", [*memory, *peaks]
    used = {name: label(name) for name in trained if name.endswith(_PERCENT)}
    yield "Use of the machine", "percent", lines(used)
    yield plain("Temperature in °C", "number", "temperature_celsius")
    yield plain("Loss scale", "number", "loss_scale")
    yield plain("Model FLOPs utilization", "number", "mfu")


def label(key: str) -> str:
    """A key of metrics.jsonl for people: `data_time_s` is data, `ram_percent` ram."""
    return key.removesuffix(_TIME).removesuffix(_PERCENT).replace("_", " ")


def _peaks(run: RunRecord, side: str) -> Iterator[PlotLine]:
    """The predicted and the measured peak, from the first to the last logged step."""
    steps = [points[at][0] for points in run.train.values() for at in (0, -1)]
    for name, key, color in (("predicted", _PREDICTED, 1), ("measured", "peak_memory_bytes", 3)):
        if (peak := (run.result.get(key) or {}).get(side)) is not None:
            yield PlotLine(
                f"{name} peak", [(min(steps), peak), (max(steps), peak)], color, dashed=True
            )


def marks(run: RunRecord, name: str = "") -> list[dict[str, Any]]:
    """The events on the step axis, by row; `name` of the run stands before each text."""
    by_row: dict[str, list[dict[str, Any]]] = {row: [] for row in [*_ROWS, _OTHER]}
    for event in shown(run):
        row = _ROW_OF.get(event["kind"], _OTHER)
        text = f"{name}: {text_of(event)}" if name else text_of(event)
        color = [*by_row].index(row)
        by_row[row].append({"x": event["step"], "lane": row, "text": text[:300], "color": color})
    return [mark for row in by_row.values() for mark in thinned(row, MOST_EVENTS)]


def rows(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Step, time and text of each event."""
    return [(str(event["step"]), event["time"], text_of(event)) for event in events]


def shown(run: RunRecord) -> list[Mapping[str, Any]]:
    """The events that a report lists: it shows others elsewhere, or not at all."""
    return [event for event in run.events if event["kind"] not in ("preview", "first_batch")]


def text_of(event: Mapping[str, Any]) -> str:
    """One event in a line, in the words of the console."""
    facts = event["facts"]
    kind = event["kind"]
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
