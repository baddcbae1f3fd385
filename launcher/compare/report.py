"""The result of a comparison: compare.json for programs, compare.html and a table for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from launcher.compare.candidates import JSON_FILE, PAGE, PlannedComparison
from launcher.compare.promises import BYTES
from launcher.compare.rows import ComparisonRow, PromiseResult
from launcher.compare.runner import ComparisonOutcome
from launcher.compare.study import Estimate, is_larger_than_noise
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
_MOST_POINTS = 200
"""Points of a curve, as a plot shows no more."""


def write(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> str:
    """Write both files into the folder; gives the text of compare.json. Touches the disk.

    `facts`: command, machine, device, and the time `at` which it began. Raises StorageError.
    """
    limits, study, rows = comparison.limits, comparison.study, []
    for row in outcome.rows:
        curves = {name: thinned(getattr(row, name)) for name in ("curve", "losses")}
        rows.append({**asdict(row), **curves})
    content = {
        **facts,
        "steps": limits.steps,
        "epochs": limits.epochs,
        "until": None if limits.until is None else limits.until.text(),
        "repeats": comparison.repeats,
        "folds": None if study is None else study.folds,
        "seeds": None if study is None else study.seeds,
        "warnings": list(outcome.warnings),
        "rows": rows,
    }
    text = encode(content, indent=2)
    with storage_errors(comparison.folder):
        comparison.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(comparison.folder / JSON_FILE, f"{text}\n".encode())
        atomic_write(comparison.folder / PAGE, render(comparison, facts, outcome))
    return text


def thinned(points: Sequence[Any]) -> list[Any]:
    """At most _MOST_POINTS, the last one included."""
    every = -(-len(points) // _MOST_POINTS)
    return list(points[::-1][:: max(every, 1)][::-1])


def title(comparison: PlannedComparison, facts: Mapping[str, str]) -> str:
    """The title: machine, device, repeats and limits."""
    limits, study, repeats = comparison.limits, comparison.study, comparison.repeats
    far = "to completion"
    if limits.steps is not None:
        far = f"for {counted(limits.steps, 'step')}"
    elif limits.epochs is not None:
        far = f"for {counted(limits.epochs, 'epoch')}"
    elif limits.until is not None:
        far = f"until {limits.until.text()}"
    often = "" if repeats == 1 else f", {repeats} times in turns"
    if study is not None:
        often = f", on {study.title}, in turns"
    return f"on {facts['machine']}; each run {far}{often}"


def table(rows: Sequence[ComparisonRow], until: Target | None) -> list[tuple[str, ...]]:
    """The header and one line per row."""
    known = sorted({row.units for row in rows if row.units_per_s is not None} - {"samples"})
    units = known[0] if len(known) == 1 else "units"
    head = ["mode", "engine", "samples", "parameters", "step", "epoch", "whole run", "samples/s"]
    head += [f"{units}/s"] if known else []
    head += ["device", "host", "growth", "best metric"]
    head += [] if until is None else [f"to {until.text()}"]
    lines = [tuple(head)]
    for row in rows:
        star = {name: " *" * is_so for name, is_so in row.extrapolated.items()}
        best = NOTHING
        if row.study is not None:
            best = _mean(row.study.metric, row.study.goal.estimate, row.study.is_partial)
        elif row.metric is not None:
            best = f"{row.metric['metric']} {real(float(row.metric['value']))}"
        cells = [
            row.mode if row.stage is None else f"{row.mode} · {row.stage}",
            row.engine,
            _of("{:,}".format, row.samples),
            _of(amount, row.parameters),
            step(row),
            _of(duration, row.epoch_s) + star["epoch"] * (row.epoch_s is not None),
            _of(duration, row.total_s) + star["total"] * (row.total_s is not None),
            _of(amount, row.samples_per_s),
        ]
        if known:
            unit = "" if row.units_per_s is None or row.units == units else f" {row.units}"
            cells.append(_of(amount, row.units_per_s) + unit)
        cells += [
            *(_of(size, row.device_peak_bytes), _of(size, row.host_peak_bytes)),
            *(_of(size, row.peak_memory_bytes), best),
        ]
        if until is not None:
            never = "never reached" if row.never_reached else NOTHING
            reached = row.time_to_metric_s
            cells.append(never if reached is None else duration(reached))
        lines.append(tuple(cells))
    return lines


def _of(render: Callable[[Any], str], value: float | None) -> str:
    return NOTHING if value is None else render(value)


def step(row: ComparisonRow) -> str:
    """Median and half the interquartile range: `38.2 ms ± 0.4`."""
    if row.step_s is None or row.step_spread_s is None:
        return NOTHING
    spread = (row.step_spread_s[1] - row.step_spread_s[0]) / 2
    if row.step_s < 1:
        return f"{row.step_s * 1e3:.1f} ms ± {spread * 1e3:.1f}"
    return f"{row.step_s:.2f} s ± {spread:.2f}"


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
            "larger than the noise" if is_larger_than_noise(mean) else "not larger",
        )
        for row in rows
        if row.study is not None and (mean := row.study.differences.get(row.study.metric or "")) is not None
    ]
    return [("paired difference", "mean ± sd [95% interval]", ""), *lines] if lines else []


def legend(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Explanations of the marks in the table."""
    for row in rows:
        if row.study is not None:
            yield from row.study.notes(row.name)
    if any(is_so for row in rows for is_so in row.extrapolated.values()):
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
    lowest, highest = (
        None if (end := item.promised.get(side)) is None else _number(item, end)
        for side in ("at_least", "at_most")
    )
    if lowest is not None and highest is not None:
        return lowest if lowest == highest else f"{lowest} to {highest}"
    if lowest is not None:
        return f"at least {lowest}"
    return NOTHING if highest is None else f"at most {highest}"


def _promises(row: ComparisonRow) -> Iterator[tuple[str, str, str, str, str]]:
    """Measure, bounds, figure, mark and kind of each promise; at last those out of scope."""
    for item in row.promises:
        known = item.why if item.why != "not measured" else None
        figure = "not measured" + (f" ({known})" if known else "")
        if item.measured is not None:
            figure = _number(item, item.measured) + (f" ({item.why})" if item.why else "")
        elif item.kept is False:
            figure = item.why or NOTHING
        yield item.name, bounds(item), figure, item.mark, _KIND[item.kept]
    for name, why in row.unpromised.items():
        yield name, NOTHING, f"not promised: {why}", "", _KIND[None]


def _number(item: PromiseResult, value: float) -> str:
    return size(value) if item.name.endswith(BYTES) else f"{value:.3g}"


def text(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    rows, folder = outcome.rows, comparison.folder
    lines = ["", title(comparison, facts), "", *_columns(table(rows, comparison.limits.until))]
    lines += [row.failure for row in rows if row.error is not None]
    lines += legend(rows)
    if compared := differences(rows):
        lines += ["", *_columns(compared)]
    promised = [("promise", "promised", "measured", "")]
    for row in rows:
        promised += [(row.name, "", "", "")] if row.promises or row.unpromised else []
        promised += [(f"  {item[0]}", *item[1:4]) for item in _promises(row)]
    if promised[1:]:
        lines += ["", *_columns(promised)]
    lines += [f"note: {warning}" for warning in outcome.warnings]
    return "\n".join([*lines, "", f"report: {folder / PAGE}; JSON: {folder / JSON_FILE}"])


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[position]) for row in rows) for position in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def render(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    head, *lines = table(rows, comparison.limits.until)
    return page.render(
        _TEMPLATE,
        _curves(rows),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(comparison, facts)}; {facts['at']}",
        command=facts["command"],
        warnings=list(outcome.warnings),
        head=head,
        lines=lines,
        failures=[row.failure for row in rows if row.error is not None],
        legend=list(legend(rows)),
        differences=differences(rows),
        promises=[
            (row.name, name.replace("_", " "), *cells) for row in rows for name, *cells in _promises(row)
        ],
        bars=list(_bars(rows)),
        notes=[f"{row.name}: {note}" for row in rows for note in row.notes],
    )


def _bars(rows: Sequence[ComparisonRow]) -> Iterator[dict[str, Any]]:
    """The bar plots, for the macro `bars`: lengths in percent of the longest.

    Each part of a bar has the number of its color, the same for a row in every plot; a whisker has
    start and length.
    """
    for title, name, text in (
        ("A step: median, and its quartiles", "step_s", _seconds),
        ("Peak memory of the device", "device_peak_bytes", size),
        ("Peak memory of the host, whole process", "host_peak_bytes", size),
        ("Peak memory of the model and its data, without the program itself", "peak_memory_bytes", size),
    ):
        bars = []
        for color, row in enumerate(rows):
            if (value := getattr(row, name)) is not None:
                low, high = (name == "step_s" and row.step_spread_s) or (0.0, 0.0)
                bars.append((row.name, value, color, text(value), low, high))
        scale = 100 / (max((max(value, high) for _, value, *_, high in bars), default=0) or 1)
        if bars:
            yield {
                "title": title,
                "parts": (),
                "bars": [
                    {
                        "name": of,
                        "parts": [(value * scale, color)],
                        "text": shown,
                        "whisker": (low * scale, (high - low) * scale) if high else None,
                    }
                    for of, value, color, shown, low, high in bars
                ],
            }
    split = [(row.name, row.time_split_s) for row in rows if row.time_split_s]
    if split:
        parts = list(dict.fromkeys(part for _, times in split for part in times))
        scale = 100 / (max(sum(times.values()) for _, times in split) or 1)
        yield {
            "title": "Where the time of an epoch goes",
            "parts": parts,
            "bars": [
                {
                    "name": name,
                    "parts": [(times.get(part, 0) * scale, at) for at, part in enumerate(parts)],
                    "text": duration(sum(times.values())),
                    "whisker": None,
                }
                for name, times in split
            ],
        }


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
