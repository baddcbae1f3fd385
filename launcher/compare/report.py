"""The result of a comparison: compare.json for programs, compare.html and a table for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from launcher.compare.candidates import JSON_FILE, PAGE
from launcher.compare.promises import PromiseResult
from launcher.compare.rows import ComparisonRow, thinned
from launcher.compare.runner import ComparisonFacts, ComparisonOutcome
from launcher.compare.study import Estimate
from launcher.report import page
from launcher.report.plots import Axis, Plot, PlotLine, Plots
from training.evaluation.early_stopping import Target
from training.logging.console_text import render_part
from training.logging.quantities import amount, counted, duration, real, size
from training.logging.strict_json import encode
from training.storage import atomic_write, storage_errors

_TEMPLATE = Path(__file__).with_suffix(".html")
_KIND = {True: "good", False: "bad", None: "quiet"}
NOTHING = "–"


def write(folder: Path, facts: ComparisonFacts, outcome: ComparisonOutcome) -> str:
    """Write both files into `folder`; gives the text of compare.json. Touches the disk.

    Raises StorageError.
    """
    content = encode(_content(facts, outcome), indent=2)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / JSON_FILE, f"{content}\n".encode())
        atomic_write(folder / PAGE, render(facts, outcome))
    return content


def _content(facts: ComparisonFacts, outcome: ComparisonOutcome) -> dict[str, Any]:
    until = facts.limits.until
    return {
        "command": facts.command,
        "machine": facts.machine,
        "device": facts.device,
        "at": facts.at.isoformat(timespec="seconds"),
        "steps": facts.limits.steps,
        "epochs": facts.limits.epochs,
        "until": None if until is None else until.text(),
        "repeats": facts.repeats,
        "folds": None if facts.study is None else facts.study.folds,
        "seeds": None if facts.study is None else facts.study.seeds,
        "warnings": list(outcome.warnings),
        "rows": [_row(row) for row in outcome.rows],
    }


def _row(row: ComparisonRow) -> dict[str, Any]:
    content = asdict(row)
    for name in ("curve", "losses"):
        content[name] = thinned(content[name])
    return content


def title(facts: ComparisonFacts) -> str:
    """The title: machine, device, repeats and limits."""
    limits = facts.limits
    far = "to completion"
    if limits.steps is not None:
        far = f"for {counted(limits.steps, 'step')}"
    elif limits.epochs is not None:
        far = f"for {counted(limits.epochs, 'epoch')}"
    elif limits.until is not None:
        far = f"until {limits.until.text()}"
    often = "" if facts.repeats == 1 else f", {facts.repeats} times in turns"
    if facts.study is not None:
        often = f", on {facts.study.title}, in turns"
    return f"on {facts.machine}; each run {far}{often}"


def table(rows: Sequence[ComparisonRow], until: Target | None) -> list[tuple[str, ...]]:
    """The header and one line per row."""
    units = sorted({row.units for row in rows if row.units_per_s is not None} - {"samples"})
    per_s = [f"{units[0] if len(units) == 1 else 'units'}/s"] if units else []
    to_metric = () if until is None else (f"to {until.text()}",)
    head = (
        *("mode", "engine", "samples", "parameters", "step", "epoch", "whole run", "samples/s"),
        *(*per_s, "device", "host", "growth", "best metric", *to_metric),
    )
    return [head, *(_line(row, per_s, until is not None) for row in rows)]


def _line(row: ComparisonRow, per_s: Sequence[str], has_goal: bool) -> tuple[str, ...]:
    """The cells of a row; `per_s`: the column of units per second, if there is one."""
    mode = row.mode if row.stage is None else f"{row.mode} · {row.stage}"
    units = _of(amount, row.units_per_s)
    if row.units_per_s is not None and f"{row.units}/s" not in per_s:
        units += f" {row.units}"
    cells = (
        mode,
        row.engine,
        _of("{:,}".format, row.samples),
        _of(amount, row.parameters),
        step(row),
        _of(duration, row.epoch_s) + " *" * (row.epoch_s is not None and row.extrapolated.epoch),
        _of(duration, row.total_s) + " *" * (row.total_s is not None and row.extrapolated.total),
        _of(amount, row.samples_per_s),
        *([units] if per_s else []),
        _of(size, row.device_peak_bytes),
        _of(size, row.host_peak_bytes),
        _of(size, row.peak_memory_bytes),
        metric(row),
    )
    return (*cells, to_metric(row)) if has_goal else cells


def step(row: ComparisonRow) -> str:
    """Median and half the interquartile range: `38.2 ms ± 0.4`."""
    if row.step_s is None or row.step_spread_s is None:
        return NOTHING
    spread = (row.step_spread_s[1] - row.step_spread_s[0]) / 2
    if row.step_s < 1:
        return f"{row.step_s * 1e3:.1f} ms ± {spread * 1e3:.1f}"
    return f"{row.step_s:.2f} s ± {spread:.2f}"


def metric(row: ComparisonRow) -> str:
    """The best evaluation; of a study, mean ± standard deviation and the interval of the mean."""
    if row.study is not None:
        return _mean(row.study.metric, row.study.goal.estimate, row.study.is_partial)
    if row.metric is None:
        return NOTHING
    return f"{row.metric['metric']} {real(float(row.metric['value']))}"


def _mean(name: str | None, mean: Estimate | None, is_partial: bool) -> str:
    """`val_loss 2.5000 ± 0.1000 [2.3758, 2.6242]`."""
    if name is None or mean is None:
        return NOTHING
    parts = [name, real(mean.mean)]
    if mean.deviation is not None and mean.interval is not None:
        low, high = map(real, mean.interval)
        parts += ["±", real(mean.deviation), f"[{low}, {high}]"]
    return " ".join([*parts, *("†" * is_partial)])


def differences(rows: Sequence[ComparisonRow]) -> list[tuple[str, ...]]:
    """The header and one line per candidate that a study compares; empty: there is none."""
    lines = [
        (
            f"{row.name} − {row.study.reference}",
            _mean(row.study.metric, mean, row.study.is_partial),
            "larger than the noise" if mean.is_larger_than_noise else "not larger",
        )
        for row in rows
        if row.study is not None
        and (mean := row.study.differences.get(row.study.metric or "")) is not None
    ]
    return [("paired difference", "mean ± sd [95% interval]", ""), *lines] if lines else []


def to_metric(row: ComparisonRow) -> str:
    """The time to the metric, or `never reached`."""
    if row.time_to_metric_s is not None:
        return duration(row.time_to_metric_s)
    return "never reached" if row.never_reached else NOTHING


def legend(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Explanations of the marks in the table."""
    for row in rows:
        if row.study is not None:
            yield from row.study.notes(row.name)
    if any(row.extrapolated.epoch or row.extrapolated.total for row in rows):
        yield "* extrapolated from the steps that were run"
    if all(row.device_peak_bytes is None for row in rows):
        yield "device memory: not measured, no GPU"
    if any(item.planned for row in rows for item in row.promises):
        yield "≈ planned, not measured: there is no GPU"
    studied = [row.study.goal.estimate for row in rows if row.study is not None]
    if any(mean is not None and mean.interval is not None for mean in studied):
        yield "best metric: mean ± standard deviation [95% interval of the mean]"
    for row in rows:
        if part := render_part(*row.evaluated):
            yield f"best metric of {row.name}: over {part}"
    digests = {row.architecture for row in rows if row.architecture is not None}
    if len(rows) > 1 and len(digests) == 1:
        yield "all rows have the same parameter names and shapes"


def bounds(item: PromiseResult) -> str:
    """`at most 0.34`, `1`, `0.5 to 0.7`; bytes with their unit."""
    ends = [item.promised.get(side) for side in ("at_least", "at_most")]
    lowest, highest = (None if end is None else _number(item, end) for end in ends)
    if lowest is not None and highest is not None:
        return lowest if lowest == highest else f"{lowest} to {highest}"
    if lowest is not None:
        return f"at least {lowest}"
    return NOTHING if highest is None else f"at most {highest}"


def measured(item: PromiseResult) -> str:
    """The ratio, and where it is planned or why it decides nothing; or why there is none."""
    if item.measured is not None:
        return _number(item, item.measured) + (f" ({item.why})" if item.why else "")
    if item.kept is False:
        return item.why or NOTHING
    known = item.why if item.why != "not measured" else None
    return "not measured" + (f" ({known})" if known else "")


def _promises(row: ComparisonRow) -> Iterator[tuple[str, str, str, str, str]]:
    """Measure, bounds, figure, mark and kind of each promise; at last those out of scope."""
    for item in row.promises:
        yield item.name, bounds(item), measured(item), item.mark, _KIND[item.kept]
    for name, why in row.unpromised.items():
        yield name, NOTHING, f"not promised: {why}", "", _KIND[None]


def _number(item: PromiseResult, value: float) -> str:
    return size(value) if item.name.endswith("_bytes") else f"{value:.3g}"


def _of(render: Callable[[Any], str], value: float | None) -> str:
    return NOTHING if value is None else render(value)


def text(facts: ComparisonFacts, outcome: ComparisonOutcome, folder: Path) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    lines = ["", title(facts), "", *_columns(table(outcome.rows, facts.limits.until))]
    lines += [row.failure for row in outcome.rows if row.error is not None]
    lines += legend(outcome.rows)
    if compared := differences(outcome.rows):
        lines += ["", *_columns(compared)]
    promised = [("promise", "promised", "measured", "")]
    for row in outcome.rows:
        promised += [(row.name, "", "", "")] if row.promises or row.unpromised else []
        promised += [
            (f"  {name}", bound, figure, mark) for name, bound, figure, mark, _ in _promises(row)
        ]
    if promised[1:]:
        lines += ["", *_columns(promised)]
    lines += [f"note: {warning}" for warning in outcome.warnings]
    return "\n".join([*lines, "", f"report: {folder / PAGE}; JSON: {folder / JSON_FILE}"])


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[position]) for row in rows) for position in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def render(facts: ComparisonFacts, outcome: ComparisonOutcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    head, *lines = table(rows, facts.limits.until)
    return page.render(
        _TEMPLATE,
        _curves(rows),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(facts)}; {facts.at:%Y-%m-%d %H:%M} UTC",
        command=facts.command,
        warnings=list(outcome.warnings),
        head=head,
        lines=lines,
        failures=[row.failure for row in rows if row.error is not None],
        legend=list(legend(rows)),
        differences=differences(rows),
        promises=[
            (row.name, name.replace("_", " "), *cells)
            for row in rows
            for name, *cells in _promises(row)
        ],
        bars=list(_bars(rows)),
        notes=[f"{row.name}: {note}" for row in rows for note in row.notes],
    )


@dataclass(frozen=True)
class Bar:
    """One bar of a bar plot, in percent of its width."""

    name: str
    parts: Sequence[tuple[float, int]]
    """Stacked shares, each with the number of its color; the same for a row in every plot."""
    text: str
    whisker: tuple[float, float] | None = None
    """Start and length."""


@dataclass(frozen=True)
class BarPlot:
    """Horizontal bars from 0."""

    title: str
    bars: Sequence[Bar]
    parts: Sequence[str] = ()
    """The names of stacked parts."""


def _bars(rows: Sequence[ComparisonRow]) -> Iterator[BarPlot]:
    for title, name, text in (
        ("A step: median, and its quartiles", "step_s", _seconds),
        ("Peak memory of the device", "device_peak_bytes", size),
        ("Peak memory of the host, whole process", "host_peak_bytes", size),
        (
            "Peak memory of the model and its data, without the program itself",
            "peak_memory_bytes",
            size,
        ),
    ):
        spread = [row.step_spread_s if name == "step_s" else None for row in rows]
        values = [getattr(row, name) for row in rows]
        known = [(at, value) for at, value in enumerate(values) if value is not None]
        highest = max((max(value, (spread[at] or (0, 0))[1]) for at, value in known), default=0)
        scale = 100 / (highest or 1)
        bars = []
        for at, value in known:
            low, high = spread[at] or (0.0, 0.0)
            whisker = (low * scale, (high - low) * scale) if high else None
            bars.append(Bar(rows[at].name, [(value * scale, at)], text(value), whisker))
        if bars:
            yield BarPlot(title, bars)
    split = [row for row in rows if row.time_split_s]
    if split:
        parts = list(dict.fromkeys(part for row in split for part in row.time_split_s))
        scale = 100 / (max(sum(row.time_split_s.values()) for row in split) or 1)
        bars = []
        for row in split:
            shares = [(row.time_split_s.get(part, 0) * scale, at) for at, part in enumerate(parts)]
            bars.append(Bar(row.name, shares, duration(sum(row.time_split_s.values()))))
        yield BarPlot("Where the time of an epoch goes", bars, parts)


def _curves(rows: Sequence[ComparisonRow]) -> Plots:
    """Metric and loss over the seconds of training."""
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    plots = []
    for title, name in ((metric, "curve"), ("Training loss", "losses")):
        lines = [
            PlotLine(row.name, [(x, y if math.isfinite(y) else None) for x, y in points], color)
            for color, row in enumerate(rows)
            if (points := getattr(row, name))
        ]
        if lines:
            plots.append(Plot(f"{title} over the seconds of training", "number", lines))
    ends = [x for plot in plots for x, _ in chain.from_iterable(n.points for n in plot.lines)]
    return Plots(Axis("second", 0, max(ends, default=0) or 1), plots)


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
