"""The result of a comparison: JSON for programs, a page for people, and tables for papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.compare.promises import BYTES
from gearshift.launcher.compare.rows import NOT_RUN, ComparisonRow, Points, PromiseResult
from gearshift.launcher.compare.runner import ComparisonOutcome
from gearshift.launcher.compare.study import Estimate, StudyFigures
from gearshift.launcher.report import page
from gearshift.launcher.report.page import PlotLine, as_json, known, plot, thinned
from gearshift.training.callbacks.base import Json
from gearshift.training.evaluation.early_stopping import Target
from gearshift.training.logging.console_text import render_part
from gearshift.training.logging.encoding import amount, counted, duration, encode, real, size
from gearshift.training.storage import atomic_write, storage_errors

Table = tuple[str, Sequence[Sequence[str]]]
"""Its caption, and its lines below a head."""
JSON_FILE = "compare.json"
PAGE = "compare.html"
MARKDOWN = "compare.md"
LATEX = "compare.tex"
_TEMPLATE = Path(__file__).with_suffix(".html")
_NOTHING = "–"
_MARKS = {True: "✓", False: "✗", None: ""}
_TEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
        "≈": r"$\approx$",
        "·": r"$\cdot$",
        "†": r"$^\dagger$",
        "✓": "yes",
        "✗": "no",
        "–": "--",
    }
)
"""Characters that LaTeX reads as commands, and those that need a font or package."""
_MOST_POINTS = 200
"""Points of a curve in compare.json."""


def write(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """Write the files into the folder; gives the text of compare.json. Raises StorageError."""
    content = {
        **comparison.facts,
        "steps": comparison.steps,
        "epochs": comparison.epochs,
        "until": comparison.until and comparison.until.text(),
        "repeats": comparison.repeats,
        "folds": comparison.study.folds,
        "seeds": comparison.study.seeds,
        "warnings": list(outcome.warnings),
        "rows": [_as_json(row) for row in outcome.rows],
    }
    text = encode(content, indent=2)
    with storage_errors(comparison.folder):
        comparison.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(comparison.folder / JSON_FILE, f"{text}\n".encode())
        atomic_write(comparison.folder / PAGE, render(comparison, outcome))
        atomic_write(comparison.folder / MARKDOWN, markdown(comparison, outcome).encode())
        atomic_write(comparison.folder / LATEX, latex(comparison, outcome).encode())
    return text


def _as_json(row: ComparisonRow) -> Json:
    return asdict(row) | {
        "curve": thinned(row.curve, _MOST_POINTS),
        "losses": thinned(row.losses, _MOST_POINTS),
    }


def text(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    lines = ["", title(comparison)]
    for _, rows in tables(outcome.rows, comparison.until):
        lines += ["", *page.aligned(rows)]
    lines += ["", *notes(outcome.rows)]
    lines += [f"note: {warning}" for warning in outcome.warnings]
    folder = comparison.folder
    lines += ["", f"report: {folder / PAGE}; JSON: {folder / JSON_FILE}"]
    lines.append(f"tables: {folder / MARKDOWN} and {folder / LATEX}")
    return "\n".join(lines)


def markdown(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The tables in Markdown, with the notes below."""
    lines = [title(comparison), ""]
    for caption, rows in tables(outcome.rows, comparison.until):
        lines += [f"**{caption}**", ""]
        head, *body = rows
        for cells in (head, ["---"] * len(head), *body):
            texts = [cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells]
            lines.append(f"| {' | '.join(texts)} |")
        lines.append("")
    lines += [f"{note}  " for note in notes(outcome.rows)]  # each on a line of its own
    return "\n".join(lines) + "\n"


def latex(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The tables for a LaTeX document with the package booktabs, with the notes below."""
    lines = [r"% \usepackage{booktabs}"]
    for caption, rows in tables(outcome.rows, comparison.until):
        texts = []
        for cells in rows:
            escaped = [cell.translate(_TEX) for cell in cells]
            texts.append(f"{' & '.join(escaped)} \\\\")
        text = f"{caption}: {title(comparison)}".translate(_TEX)
        lines += [
            r"\begin{table}",
            rf"\caption{{{text}}}",
            rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}",
            r"\toprule",
            texts[0],
            r"\midrule",
            *texts[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    lines += [f"{note.translate(_TEX)}\\par" for note in notes(outcome.rows)]
    return "\n".join(lines) + "\n"


def render(comparison: PlannedComparison, outcome: ComparisonOutcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    adapted = [f"{row.name}: {note}" for row in rows for note in row.notes]
    curves = _lines({row.name: row.curve for row in rows})
    losses = _lines({row.name: row.losses for row in rows})
    plots = [
        plot(f"{name} over the seconds of training", "number", lines)
        for name, lines in ((metric, curves), ("Training loss", losses))
        if lines
    ]
    return page.render(
        _TEMPLATE,
        as_json("second", plots),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(comparison)}; {comparison.facts['at']}",
        command=comparison.facts["command"],
        warnings=list(outcome.warnings),
        tables=tables(rows, comparison.until),
        notes=[*notes(rows), *adapted],
    )


def _lines(columns: Mapping[str, Points]) -> list[PlotLine]:
    """The lines of a plot, each row in its color."""
    lines = []
    for color, (name, points) in enumerate(columns.items()):
        values = [(x, y if math.isfinite(y) else None) for x, y in points]
        if values:
            lines.append(PlotLine(name, values, color))
    return lines


def title(comparison: PlannedComparison) -> str:
    """Machine, limits as settings, and repeats."""
    limits = " ".join(comparison.limits) or "to completion"
    for candidate in comparison.candidates[:1]:
        time = candidate.resolved.settings.train.time
        if time is not None:
            limits = f"for {time}"
    text = f"on {comparison.facts['machine']}; each run {limits}"
    if comparison.study.title:
        text += f", on {comparison.study.title}, in turns"
    elif comparison.repeats > 1:
        text += f", {comparison.repeats} times in turns"
    return text


def tables(rows: Sequence[ComparisonRow], until: Target | None) -> list[Table]:
    """What was measured, the paired differences of a study, and the promises; each with a head."""
    has_baseline = any(row.baseline is not None for row in rows)
    cells = [_measured(row, until, has_baseline) for row in rows]
    measured = [list(cells[0]), *(list(row.values()) for row in cells)]
    compared = [("paired difference", "mean ± sd [95% interval]", "")]
    promised = [("mode", "promise", "promised", "measured", "")]
    for row in rows:
        study = row.study
        mean = study.goal_difference if study else None
        if study and mean:
            verdict = "larger than the noise" if mean.is_larger_than_noise else "not larger"
            pair = f"{row.name} − {study.reference}"
            compared.append((pair, _mean(study, mean), verdict))
        for promise in row.promises:
            promised.append((row.name, *_promise(promise)))
        for name, why in row.unpromised.items():
            promised.append((row.name, name, _NOTHING, f"not promised: {why}", ""))
    every: list[Table] = [
        ("Measured", measured),
        ("Paired differences, on the same folds and seeds", compared),
        ("Promised, beside mode default", promised),
    ]
    return [(caption, lines) for caption, lines in every if len(lines) > 1]


def _measured(row: ComparisonRow, until: Target | None, has_baseline: bool) -> dict[str, str]:
    """The cells of a row by the head of their column."""
    mode = " · ".join(filter(None, [row.mode, row.stage]))
    step = _NOTHING
    if row.step_s is not None and row.step_spread_s:
        low, high = row.step_spread_s
        half = (high - low) / 2
        step = f"{row.step_s:.2f} s ± {half:.2f}"
        if row.step_s < 1:
            step = f"{1e3 * row.step_s:.1f} ms ± {1e3 * half:.1f}"
    best = _NOTHING
    if row.study:
        best = _mean(row.study, row.study.goal.estimate)
    elif row.metric:
        best = f"{row.metric['metric']} {real(float(row.metric['value']))}"
    cells = {
        "mode": mode,
        "engine": row.engine,
        "samples": _cell("{:,}".format, row.samples),
        "parameters": _cell(amount, row.parameters),
        "step": step,
        "epoch": _cell(duration, row.epoch_s, row.extrapolated["epoch"]),
        "whole run": _cell(duration, row.total_s, row.extrapolated["total"]),
        "samples/s": _cell(amount, row.samples_per_s),
        "units/s": _cell(lambda speed: f"{amount(speed)} {row.units}", row.units_per_s),
        "device": _cell(size, row.device_peak_bytes),
        "host": _cell(size, row.host_peak_bytes),
        "growth": _cell(size, row.peak_memory_bytes),
        "best metric": best,
    }
    if has_baseline:
        cells["baseline"] = _cell(real, row.baseline)
    if until:
        reached = _cell(duration, row.time_to_metric_s)
        cells[f"to {until.text()}"] = "never reached" if row.never_reached else reached
    return cells


def _cell(render: Callable[[Any], str], value: Any, has_star: bool = False) -> str:
    text = known(value, render)
    return f"{text} *" if has_star and value is not None else text


def _mean(study: StudyFigures, mean: Estimate | None) -> str:
    """`val_loss 2.5000 ± 0.1000 [2.3758, 2.6242]`, with a mark where runs are missing."""
    if not mean:
        return _NOTHING
    text = f"{study.metric} {real(mean.mean)}"
    if mean.deviation is not None:
        text += f" ± {real(mean.deviation)}"
    if mean.interval:
        low, high = map(real, mean.interval)
        text += f" [{low}, {high}]"
    return f"{text} †" if study.is_partial else text


def _promise(item: PromiseResult) -> tuple[str, str, str, str]:
    """Name, bounds as `at most 0.34`, `1` or `0.5 to 0.7`, measurement, and mark."""
    number = size if item.name.endswith(BYTES) else "{:.3g}".format
    bounds = _NOTHING
    lowest = item.promised.get("at_least")
    highest = item.promised.get("at_most")
    if lowest and highest:
        bounds = " to ".join(dict.fromkeys([number(lowest), number(highest)]))
    elif lowest:
        bounds = f"at least {number(lowest)}"
    elif highest:
        bounds = f"at most {number(highest)}"
    figure = "not measured" if item.measured is None else number(item.measured)
    if item.why not in (None, figure):
        figure = f"{figure} ({item.why})"
        if item.kept is False and item.measured is None:
            figure = item.why
    mark = _MARKS[item.kept]
    if item.planned:
        mark = f"≈{mark}"
    return item.name, bounds, figure, mark


def notes(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Failures, and explanations of the marks in the tables."""
    are_planned = False
    for row in rows:
        study = row.study
        if row.error == NOT_RUN:
            yield f"{row.name}: {NOT_RUN}"
        elif row.error:
            yield f"{row.name} failed: {row.error}"
        if study:
            for name, error in study.failed.items():
                yield f"† {row.name} {name} failed: {error}"
            if study.is_partial:
                values = len(study.goal.values)
                runs = counted(study.planned, "run")
                yield f"† {row.name}: {study.metric} of {values} of {runs}"
        are_planned = are_planned or any(promise.planned for promise in row.promises)
        part = render_part(*row.evaluated)
        if part:
            yield f"best metric of {row.name}: over {part}"
    if any(any(row.extrapolated.values()) for row in rows):
        yield "* extrapolated from the steps that were run"
    if all(row.device_peak_bytes is None for row in rows):
        yield "device memory: not measured, no GPU"
    if are_planned:
        yield "≈ planned, not measured: there is no GPU"
