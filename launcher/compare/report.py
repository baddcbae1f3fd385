"""The result of a comparison: compare.json for programs, compare.html and tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.compare.promises import BYTES
from gearshift.launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from gearshift.launcher.compare.runner import ComparisonOutcome
from gearshift.launcher.compare.study import Estimate, StudyFigures
from gearshift.launcher.report import page
from gearshift.launcher.report.page import PlotLine, as_json, plot, thinned
from gearshift.training.evaluation.early_stopping import Target
from gearshift.training.logging.console_text import render_part
from gearshift.training.logging.quantities import amount, counted, duration, real, size
from gearshift.training.logging.strict_json import encode
from gearshift.training.storage import atomic_write, storage_errors

Table = tuple[str, Sequence[Sequence[str]]]
"""Its caption, and its lines below a head."""
JSON_FILE = "compare.json"
PAGE = "compare.html"
_TEMPLATE = Path(__file__).with_suffix(".html")
_NOTHING = "–"
_MARKS = {True: "✓", False: "✗", None: ""}
_MOST_POINTS = 200
"""Points of a curve in compare.json."""


def write(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """Write both files into the folder; gives the text of compare.json. Raises StorageError."""
    content = {
        **comparison.facts,
        "steps": comparison.steps,
        "epochs": comparison.epochs,
        "until": comparison.until and comparison.until.text(),
        "repeats": comparison.repeats,
        "folds": comparison.study.folds,
        "seeds": comparison.study.seeds,
        "warnings": list(outcome.warnings),
        "rows": [
            asdict(row)
            | {name: thinned(getattr(row, name), _MOST_POINTS) for name in ("curve", "losses")}
            for row in outcome.rows
        ],
    }
    text = encode(content, indent=2)
    with storage_errors(comparison.folder):
        comparison.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(comparison.folder / JSON_FILE, f"{text}\n".encode())
        atomic_write(comparison.folder / PAGE, render(comparison, outcome))
    return text


def text(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    lines = ["", title(comparison)]
    for _, rows in tables(outcome.rows, comparison.until):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        cells = [
            [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows
        ]
        lines += ["", *("  ".join(row).rstrip() for row in cells)]
    lines += ["", *notes(outcome.rows), *(f"note: {warning}" for warning in outcome.warnings)]
    folder = comparison.folder
    return "\n".join([*lines, "", f"report: {folder / PAGE}; JSON: {folder / JSON_FILE}"])


def render(comparison: PlannedComparison, outcome: ComparisonOutcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    plots = []
    for name, field in ((metric, "curve"), ("Training loss", "losses")):
        lines = [
            PlotLine(
                row.name,
                [(x, y if math.isfinite(y) else None) for x, y in getattr(row, field)],
                color,
            )
            for color, row in enumerate(rows)
            if getattr(row, field)
        ]
        plots += [plot(f"{name} over the seconds of training", "number", lines)] if lines else []
    return page.render(
        _TEMPLATE,
        as_json("second", plots),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(comparison)}; {comparison.facts['at']}",
        command=comparison.facts["command"],
        warnings=list(outcome.warnings),
        tables=tables(rows, comparison.until),
        notes=[*notes(rows), *(f"{row.name}: {note}" for row in rows for note in row.notes)],
    )


def title(comparison: PlannedComparison) -> str:
    """Machine, limits as settings, and repeats."""
    study = comparison.study
    repeats = comparison.repeats
    often = (
        f", on {study.title}, in turns"
        if study.title
        else f", {repeats} times in turns" * (repeats > 1)
    )
    return f"on {comparison.facts['machine']}; each run {' '.join(comparison.limits) or 'to completion'}{often}"


def tables(rows: Sequence[ComparisonRow], until: Target | None) -> list[Table]:
    """What was measured, the paired differences of a study, and the promises; each with a head."""
    measured = [_measured(row, until) for row in rows]
    compared = [("paired difference", "mean ± sd [95% interval]", "")]
    promised = [("mode", "promise", "promised", "measured", "")]
    for row in rows:
        if row.study is not None and (mean := row.study.differences.get(row.study.metric or "")):
            verdict = "larger than the noise" if mean.is_larger_than_noise else "not larger"
            compared.append(
                (f"{row.name} − {row.study.reference}", _mean(row.study, mean), verdict)
            )
        promised += [(row.name, *_promise(item)) for item in row.promises]
        promised += [
            (row.name, k, _NOTHING, f"not promised: {why}", "") for k, why in row.unpromised.items()
        ]
    every: list[Table] = [
        ("Measured", [[*measured[0]], *([*cells.values()] for cells in measured)]),
        ("Paired differences, on the same folds and seeds", compared),
        ("Promised, beside mode default", promised),
    ]
    return [(caption, lines) for caption, lines in every if lines[1:]]


def _measured(row: ComparisonRow, until: Target | None) -> dict[str, str]:
    """The cells of a row by the head of their column."""

    def cell(render: Callable[[Any], str], value: Any, star: str = "") -> str:
        return (
            _NOTHING if value is None else render(value) + " *" * row.extrapolated.get(star, False)
        )

    step = _NOTHING
    best = cell(lambda best: f"{best['metric']} {real(float(best['value']))}", row.metric)
    if row.step_s is not None and row.step_spread_s is not None:
        low, high = row.step_spread_s
        scale, places, unit = (1e3, 1, "ms") if row.step_s < 1 else (1, 2, "s")
        step = f"{scale * row.step_s:.{places}f} {unit} ± {scale * (high - low) / 2:.{places}f}"
    cells = {
        "mode": row.mode if row.stage is None else f"{row.mode} · {row.stage}",
        "engine": row.engine,
        "samples": cell("{:,}".format, row.samples),
        "parameters": cell(amount, row.parameters),
        "step": step,
        "epoch": cell(duration, row.epoch_s, "epoch"),
        "whole run": cell(duration, row.total_s, "total"),
        "samples/s": cell(amount, row.samples_per_s),
        "units/s": cell(lambda speed: f"{amount(speed)} {row.units}", row.units_per_s),
        "device": cell(size, row.device_peak_bytes),
        "host": cell(size, row.host_peak_bytes),
        "growth": cell(size, row.peak_memory_bytes),
        "best metric": best if row.study is None else _mean(row.study, row.study.goal.estimate),
    }
    if until is not None:
        reached = cell(duration, row.time_to_metric_s)
        cells[f"to {until.text()}"] = "never reached" if row.never_reached else reached
    return cells


def _mean(study: StudyFigures, mean: Estimate | None) -> str:
    """`val_loss 2.5000 ± 0.1000 [2.3758, 2.6242]`, with a mark where runs are missing."""
    if mean is None:
        return _NOTHING
    text = f"{study.metric} {real(mean.mean)}"
    if mean.deviation is not None and mean.interval is not None:
        low, high = map(real, mean.interval)
        text += f" ± {real(mean.deviation)} [{low}, {high}]"
    return text + " †" * study.is_partial


def _promise(item: PromiseResult) -> tuple[str, str, str, str]:
    """Name, bounds as `at most 0.34`, `1` or `0.5 to 0.7`, measurement, and mark."""

    def number(value: float) -> str:
        return size(value) if item.name.endswith(BYTES) else f"{value:.3g}"

    ends = {
        side: number(end) for side in ("at_least", "at_most") if (end := item.promised.get(side))
    }
    bounds = " to ".join(dict.fromkeys(ends.values())) or _NOTHING
    if len(ends) == 1:
        bounds = f"{next(iter(ends)).replace('_', ' ')} {bounds}"
    figure = "not measured" if item.measured is None else number(item.measured)
    if item.why not in (None, figure):
        figure = (
            item.why if item.kept is False and item.measured is None else f"{figure} ({item.why})"
        )
    return item.name, bounds, figure, "≈" * item.planned + _MARKS[item.kept]


def notes(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Failures, and explanations of the marks in the tables."""
    for row in rows:
        if row.error is not None:
            yield (
                f"{row.name}: {NOT_RUN}"
                if row.error == NOT_RUN
                else f"{row.name} failed: {row.error}"
            )
        if row.study is not None:
            study = row.study
            values = row.study.goal.values
            yield from (
                f"† {row.name} {name} failed: {error}" for name, error in study.failed.items()
            )
            if study.is_partial:
                yield f"† {row.name}: {study.metric} of {len(values)} of {counted(study.planned, 'run')}"
        if part := render_part(*row.evaluated):
            yield f"best metric of {row.name}: over {part}"
    if any(is_so for row in rows for is_so in row.extrapolated.values()):
        yield "* extrapolated from the steps that were run"
    if all(row.device_peak_bytes is None for row in rows):
        yield "device memory: not measured, no GPU"
    if any(item.planned for row in rows for item in row.promises):
        yield "≈ planned, not measured: there is no GPU"
