"""The result of a comparison: compare.json for programs, compare.html and tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.compare.candidates import JSON_FILE, PAGE, PlannedComparison
from launcher.compare.promises import BYTES
from launcher.compare.rows import ComparisonRow, PromiseResult
from launcher.compare.runner import ComparisonOutcome
from launcher.compare.study import Estimate, StudyFigures
from launcher.report import page
from launcher.report.plots import Plot, PlotLine, as_json, thinned
from training.evaluation.early_stopping import Target
from training.logging.console_text import render_part
from training.logging.quantities import amount, counted, duration, real, size
from training.logging.strict_json import encode
from training.storage import atomic_write, storage_errors

Table = tuple[str, Sequence[Sequence[str]]]
"""Its caption, and its lines below a head."""
_TEMPLATE = Path(__file__).with_suffix(".html")
_NOTHING = "–"
_MARKS = {True: "✓", False: "✗", None: ""}
_MOST_POINTS = 200
"""Points of a curve in compare.json."""


def write(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> str:
    """Write both files into the folder; gives the text of compare.json. Touches the disk.

    `facts`: command, machine, device, and the time `at` which it began. Raises StorageError.
    """
    limits, study, rows = comparison.limits, comparison.study, []
    for row in outcome.rows:
        curves = {name: thinned(getattr(row, name), _MOST_POINTS) for name in ("curve", "losses")}
        rows.append({**asdict(row), **curves})
    content = {
        **facts,
        "steps": limits.steps,
        "epochs": limits.epochs,
        "until": None if limits.until is None else limits.until.text(),
        "repeats": comparison.repeats,
        "folds": study.folds,
        "seeds": study.seeds,
        "warnings": list(outcome.warnings),
        "rows": rows,
    }
    text = encode(content, indent=2)
    with storage_errors(comparison.folder):
        comparison.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(comparison.folder / JSON_FILE, f"{text}\n".encode())
        atomic_write(comparison.folder / PAGE, render(comparison, facts, outcome))
    return text


def text(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    lines = ["", title(comparison, facts)]
    for _, rows in tables(outcome.rows, comparison.limits.until):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append("")
        for row in rows:
            lines.append("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
    lines += ["", *notes(outcome.rows), *(f"note: {warning}" for warning in outcome.warnings)]
    folder = comparison.folder
    return "\n".join([*lines, "", f"report: {folder / PAGE}; JSON: {folder / JSON_FILE}"])


def render(comparison: PlannedComparison, facts: Mapping[str, str], outcome: ComparisonOutcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    plots = []
    for name, field in ((metric, "curve"), ("Training loss", "losses")):
        lines = [
            PlotLine(row.name, [(x, y if math.isfinite(y) else None) for x, y in points], color)
            for color, row in enumerate(rows)
            if (points := getattr(row, field))
        ]
        plots += [Plot(f"{name} over the seconds of training", "number", lines)] if lines else []
    return page.render(
        _TEMPLATE,
        as_json("second", plots),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(comparison, facts)}; {facts['at']}",
        command=facts["command"],
        warnings=list(outcome.warnings),
        tables=tables(rows, comparison.limits.until),
        notes=[*notes(rows), *(f"{row.name}: {note}" for row in rows for note in row.notes)],
    )


def title(comparison: PlannedComparison, facts: Mapping[str, str]) -> str:
    """Machine, limits as settings, and repeats."""
    study, repeats = comparison.study, comparison.repeats
    often = f", on {study.title}, in turns" if study.title else f", {repeats} times in turns" * (repeats > 1)
    return f"on {facts['machine']}; each run {' '.join(comparison.limits.sets) or 'to completion'}{often}"


def tables(rows: Sequence[ComparisonRow], until: Target | None) -> list[Table]:
    """What was measured, the paired differences of a study, and the promises; each with a head."""
    measured = [_measured(row, until) for row in rows]
    compared, promised = [], []
    for row in rows:
        if row.study is not None and (mean := row.study.differences.get(row.study.metric or "")):
            verdict = "larger than the noise" if mean.is_larger_than_noise else "not larger"
            compared.append((f"{row.name} − {row.study.reference}", _mean(row.study, mean), verdict))
        promised += [
            (row.name, p.name, _bounds(p), _figure(p), "≈" * p.planned + _MARKS[p.kept]) for p in row.promises
        ]
        promised += [
            (row.name, name, _NOTHING, f"not promised: {why}", "") for name, why in row.unpromised.items()
        ]
    paired = "Paired differences, on the same folds and seeds"
    found: list[Table] = [
        ("Measured", [list(measured[0]), *(list(cells.values()) for cells in measured)]),
        (paired, [("paired difference", "mean ± sd [95% interval]", ""), *compared]),
        ("Promised, beside mode default", [("mode", "promise", "promised", "measured", ""), *promised]),
    ]
    return [(caption, lines) for caption, lines in found if lines[1:]]


def _measured(row: ComparisonRow, until: Target | None) -> dict[str, str]:
    """The cells of a row by the head of their column."""
    star = {name: " *" * is_so for name, is_so in row.extrapolated.items()}
    best = _NOTHING
    if row.study is not None:
        best = _mean(row.study, row.study.goal.estimate)
    elif row.metric is not None:
        best = f"{row.metric['metric']} {real(float(row.metric['value']))}"
    cells = {
        "mode": row.mode if row.stage is None else f"{row.mode} · {row.stage}",
        "engine": row.engine,
        "samples": _of("{:,}".format, row.samples),
        "parameters": _of(amount, row.parameters),
        "step": step(row),
        "epoch": _of(lambda s: duration(s) + star["epoch"], row.epoch_s),
        "whole run": _of(lambda s: duration(s) + star["total"], row.total_s),
        "samples/s": _of(amount, row.samples_per_s),
        "units/s": _of(lambda speed: f"{amount(speed)} {row.units}", row.units_per_s),
        "device": _of(size, row.device_peak_bytes),
        "host": _of(size, row.host_peak_bytes),
        "growth": _of(size, row.peak_memory_bytes),
        "best metric": best,
    }
    if until is not None:
        reached = _of(duration, row.time_to_metric_s)
        cells[f"to {until.text()}"] = "never reached" if row.never_reached else reached
    return cells


def _of(render: Callable[[Any], str], value: float | None) -> str:
    return _NOTHING if value is None else render(value)


def step(row: ComparisonRow) -> str:
    """Median and half the interquartile range: `38.2 ms ± 0.4`."""
    if row.step_s is None or row.step_spread_s is None:
        return _NOTHING
    spread = (row.step_spread_s[1] - row.step_spread_s[0]) / 2
    if row.step_s < 1:
        return f"{row.step_s * 1e3:.1f} ms ± {spread * 1e3:.1f}"
    return f"{row.step_s:.2f} s ± {spread:.2f}"


def _mean(study: StudyFigures, mean: Estimate | None) -> str:
    """`val_loss 2.5000 ± 0.1000 [2.3758, 2.6242]`, with a mark where runs are missing."""
    if mean is None:
        return _NOTHING
    text = f"{study.metric} {real(mean.mean)}"
    if mean.deviation is not None and mean.interval is not None:
        low, high = map(real, mean.interval)
        text += f" ± {real(mean.deviation)} [{low}, {high}]"
    return text + " †" * study.is_partial


def _bounds(item: PromiseResult) -> str:
    """`at most 0.34`, `1`, `0.5 to 0.7`; bytes with their unit."""
    ends = {side: _number(item, end) for side in ("at_least", "at_most") if (end := item.promised.get(side))}
    if len(ends) == 2:
        return " to ".join(dict.fromkeys(ends.values()))
    return "".join(f"{side.replace('_', ' ')} {end}" for side, end in ends.items()) or _NOTHING


def _figure(item: PromiseResult) -> str:
    if item.kept is False and item.measured is None:
        return item.why or _NOTHING
    figure = "not measured" if item.measured is None else _number(item, item.measured)
    return figure if item.why in (None, figure) else f"{figure} ({item.why})"


def _number(item: PromiseResult, value: float) -> str:
    return size(value) if item.name.endswith(BYTES) else f"{value:.3g}"


def notes(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Failures, and explanations of the marks in the tables."""
    for row in rows:
        if row.error is not None:
            yield row.failure
        if row.study is not None:
            study, values = row.study, row.study.goal.values
            yield from (f"† {row.name} {name} failed: {error}" for name, error in study.failed.items())
            if len(values) < study.planned:
                yield f"† {row.name}: {study.metric} of {len(values)} of {counted(study.planned, 'run')}"
    if any(is_so for row in rows for is_so in row.extrapolated.values()):
        yield "* extrapolated from the steps that were run"
    if all(row.device_peak_bytes is None for row in rows):
        yield "device memory: not measured, no GPU"
    if any(item.planned for row in rows for item in row.promises):
        yield "≈ planned, not measured: there is no GPU"
    for row in rows:
        if part := render_part(*row.evaluated):
            yield f"best metric of {row.name}: over {part}"
