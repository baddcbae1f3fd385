"""The curves of one run, or of several runs in the same plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from launcher.report import events
from launcher.report.plots import Axis, Plot, PlotLine, Plots, Point, Unit
from launcher.report.run_record import Columns, RunRecord

_STEP = "step_time_s"
_TIME = "_time_s"
_PERCENT = "_percent"


def plots(runs: Sequence[RunRecord]) -> Plots:
    """All curves of `runs`, over steps; events are those of all runs."""
    drawn = [plot for plot in _all(runs) if any(len(line.points) > 0 for line in plot.lines)]
    is_one = len(runs) == 1
    marks = list(chain.from_iterable(events.marks(run, "" if is_one else run.name) for run in runs))
    places = [point[0] for plot in drawn for line in plot.lines for point in line.points]
    places += [mark.x for mark in marks]
    low, high = min(places, default=0), max(places, default=1)
    return Plots(Axis("step", low, max(high, low + 1)), drawn, marks)


def _all(runs: Sequence[RunRecord]) -> Iterator[Plot]:
    losses = _names(runs, lambda run: run.evaluations, lambda name: "loss" in name)
    trained = [("loss", "loss"), *_parts(runs)]
    lines = _of(runs, trained)
    yield Plot("Loss", "number", [*lines, *_evaluated(runs, losses, after=len(lines))])
    for name in _metrics(runs, losses):
        yield Plot(name, "number", _evaluated(runs, [name]))
    yield _plot(runs, "Learning rate", "number", "lr")
    yield _plot(runs, "Gradient norm", "number", "grad_norm")
    yield _plot(runs, "Samples per second", "per second", "samples_per_s")
    if (units := _units(runs)) != "samples":
        yield _plot(runs, f"{units.capitalize()} per second", "per second", "tokens_per_s")
    times = [name for name in _names(runs, _trained, lambda n: n.endswith(_TIME)) if name != _STEP]
    labels = [("step", _STEP), *((label(name), name) for name in times)]
    yield Plot("Seconds of a step", "seconds", _of(runs, labels[:1] if len(runs) > 1 else labels))
    for side in ("device", "host"):
        lines = _of(runs, [(f"{side} memory", f"{side}_memory_bytes")])
        yield Plot(f"Memory of the {side}", "bytes", [*lines, *_predicted(runs, side)])
    used = _names(runs, _trained, lambda name: name.endswith(_PERCENT))
    if len(runs) == 1:
        yield Plot("Use of the machine, and limits", "percent", _use(runs[0], used))
    else:
        for name in used:
            yield _plot(runs, f"Use of {label(name)}", "percent", name)
    yield _plot(runs, "Temperature in °C", "number", "temperature_celsius")
    yield _plot(runs, "Loss scale", "number", "loss_scale")
    yield _plot(runs, "Model FLOPs utilization", "number", "mfu")


def label(key: str) -> str:
    """A key of metrics.jsonl for people: `data_time_s` is data, `ram_percent` ram."""
    return key.removesuffix(_TIME).removesuffix(_PERCENT).replace("_", " ")


def _units(runs: Sequence[RunRecord]) -> str:
    """What the losses sum over: `tokens`; of different runs, `units`."""
    units = {
        str(event.facts.get("units", "units"))
        for run in runs
        for event in run.events
        if event.kind == "started"
    }
    return units.pop() if len(units) == 1 else "units"


def _plot(runs: Sequence[RunRecord], title: str, unit: Unit, key: str) -> Plot:
    return Plot(title, unit, _of(runs, [(title.lower(), key)]))


def _of(runs: Sequence[RunRecord], named: Sequence[tuple[str, str]]) -> list[PlotLine]:
    """A line for each run and each of the keys that are `named`; colors tell the runs apart."""
    lines = []
    for at, run in enumerate(runs):
        for number, (name, key) in enumerate(named):
            if points := run.train.get(key):
                is_one = len(runs) == 1
                color = number if is_one else at
                text = name if is_one else run.name
                lines.append(PlotLine(text, points, color, dashed=not is_one and number > 0))
    return lines


def _evaluated(runs: Sequence[RunRecord], names: Sequence[str], after: int = 0) -> list[PlotLine]:
    """Lines of metrics, `after` so many lines of training in the same plot, or alone."""
    lines = []
    is_mixed = after > 0 or len(names) > 1
    for at, run in enumerate(runs):
        for number, name in enumerate(names):
            if points := run.evaluations.get(name):
                is_one = len(runs) == 1
                text = name if is_one else f"{run.name}, {name}" if is_mixed else run.name
                color = after + number if is_one else at
                lines.append(PlotLine(text, points, color, dashed=not is_one and after > 0))
    return lines


def _parts(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """The parts of the loss, of a single run."""
    if len(runs) > 1:
        return []
    return [(key.removeprefix("parts."), key) for key in runs[0].train if key.startswith("parts.")]


def _metrics(runs: Sequence[RunRecord], losses: Sequence[str]) -> list[str]:
    """The metrics that are no loss; the one that decides which checkpoint is best comes first."""
    best = [(run.result.get("best") or {}).get("metric") for run in runs]
    names = _names(runs, lambda run: run.evaluations, lambda name: name not in losses)
    return sorted(names, key=lambda name: name not in best)


def _trained(run: RunRecord) -> Columns:
    return run.train


def _names(
    runs: Sequence[RunRecord], columns: Callable[[RunRecord], Columns], fits: Callable[[str], bool]
) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in columns(run) if fits(name)))


def _predicted(runs: Sequence[RunRecord], side: str) -> list[PlotLine]:
    """The predicted peak of a single run, beside its memory."""
    if len(runs) > 1 or not runs[0].train.get(f"{side}_memory_bytes"):
        return []
    peaks: Mapping[str, float | None] = runs[0].result.get("predicted_memory_bytes") or {}
    measured = (runs[0].result.get("peak_memory_bytes") or {}).get(side)
    lines = []
    if (peak := peaks.get(side)) is not None:
        lines.append(PlotLine("predicted peak", _level(runs[0], peak), 1, dashed=True))
    if measured is not None:
        lines.append(PlotLine("measured peak", _level(runs[0], measured), 3, dashed=True))
    return lines


def _use(run: RunRecord, names: Sequence[str]) -> list[PlotLine]:
    """The use of each resource, with its limit in the same color."""
    lines = []
    for color, name in enumerate(names):
        lines.append(PlotLine(label(name), run.train[name], color))
        limit = run.value(f"limits.{label(name)}")
        if isinstance(limit, int | float):
            level = _level(run, limit)
            lines.append(PlotLine(f"limit of {label(name)}", level, color, dashed=True))
    return lines


def _level(run: RunRecord, value: float) -> list[Point]:
    """The same value from the first to the last logged step."""
    ends = [points[at][0] for points in run.train.values() for at in (0, -1)]
    return [(min(ends), value), (max(ends), value)]
