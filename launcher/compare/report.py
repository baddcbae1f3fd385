"""The result of a comparison: JSON for programs, a page for people, and tables for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.compare.promises import BYTES
from gearshift.launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from gearshift.launcher.compare.runner import ComparisonOutcome
from gearshift.launcher.compare.study import Estimate, StudyFigures
from gearshift.launcher.report import page
from gearshift.launcher.report.page import PlotLine, known, plot
from gearshift.launcher.report.run_list import aligned
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


def write(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """Write the files into the folder; gives the text of compare.json. Raises StorageError."""
    content = {
        **comparison.facts,
        "limits": comparison.limits,
        "rounds": list(comparison.study.rounds),
        "folds": comparison.study.folds,
        "seeds": comparison.study.seeds,
        "warnings": list(outcome.warnings),
        "rows": list(map(asdict, outcome.rows)),
    }
    text = encode(content, indent=2)
    files = {
        JSON_FILE: f"{text}\n".encode(),
        PAGE: render(comparison, outcome),
        MARKDOWN: markdown(comparison, outcome).encode(),
        LATEX: latex(comparison, outcome).encode(),
    }
    with storage_errors(comparison.folder):
        comparison.folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            atomic_write(comparison.folder / name, data)
    return text


def text(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    lines = ["", markdown(comparison, outcome)]
    lines += [f"note: {warning}" for warning in outcome.warnings]
    lines += ["", f"report: {comparison.folder / PAGE}; beside it {JSON_FILE}, {MARKDOWN}, {LATEX}"]
    return "\n".join(lines)


def markdown(comparison: PlannedComparison, outcome: ComparisonOutcome) -> str:
    """The tables in Markdown, aligned, with the notes below."""
    lines = [title(comparison), ""]
    for caption, (head, *rows) in tables(outcome.rows, comparison.until):
        lines += [f"**{caption}**", ""]
        cells = []
        for row in (head, ["---"] * len(head), *rows):
            texts = [cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row]
            cells.append([f"| {text} " for text in texts])
        lines += [f"{line} |" for line in aligned(cells)]
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
    plots = []
    for name, points in (
        (metric, [row.curve for row in rows]),
        ("Training loss", [row.losses for row in rows]),
    ):
        lines = [
            PlotLine(row.name, points[color], color)
            for color, row in enumerate(rows)
            if points[color]
        ]
        if lines:
            plots.append(plot(f"{name} over the seconds of training", "number", lines))
    return page.render(
        _TEMPLATE,
        plots,
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{title(comparison)}; {comparison.facts['at']}",
        command=comparison.facts["command"],
        warnings=list(outcome.warnings),
        tables=tables(rows, comparison.until),
        notes=notes(rows),
    )


def title(comparison: PlannedComparison) -> str:
    """Machine, limits as settings, and repeats."""
    limits = [f"{key}={plain(value)}" for key, value in comparison.limits.items()]
    text = f"on {comparison.facts['machine']}; each run {' '.join(limits) or 'to its end'}"
    if comparison.study.title:
        text += f", on {comparison.study.title}, in turns"
    elif len(comparison.study.rounds) > 1:
        text += f", {len(comparison.study.rounds)} times in turns"
    return text


def tables(rows: Sequence[ComparisonRow], until: Target | None) -> list[Table]:
    """What was measured, the paired differences of a study, and the promises; each with a head."""
    cells = [_measured(row, until) for row in rows]
    measured = [list(cells[0]), *(list(row.values()) for row in cells)]
    compared = [("paired difference", "mean ± sd [95% interval]", "")]
    promised = [("mode", "promise", "promised", "measured", "")]
    for row in rows:
        study = row.study
        mean = study.difference if study else None
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


def _measured(row: ComparisonRow, until: Target | None) -> dict[str, str]:
    """The cells of a row by the head of their column."""
    step = _NOTHING
    if row.step_s is not None and row.step_spread_s:
        low, high = row.step_spread_s
        step = f"{1e3 * row.step_s:.1f} ms ± {1e3 * (high - low) / 2:.1f}"
    best = _NOTHING
    if row.study:
        best = _mean(row.study, row.study.estimate)
    elif row.metric:
        best = f"{row.metric['metric']} {real(float(row.metric['value']))}"
    cells = {
        "mode": " · ".join(filter(None, [row.mode, row.stage])),
        "engine": row.engine,
        "samples": known(row.samples, "{:,}".format),
        "parameters": known(row.parameters, amount),
        "step": step,
        "epoch": _time(row.epoch_s, row.extrapolated["epoch"]),
        "whole run": _time(row.total_s, row.extrapolated["total"]),
        "samples/s": known(row.samples_per_s, amount),
        f"{row.units}/s": known(row.units_per_s, amount),
        "device": known(row.device_peak_bytes, size),
        "host": known(row.host_peak_bytes, size),
        "growth": known(row.peak_memory_bytes, size),
        "best metric": best,
        "baseline": known(row.baseline, real),
    }
    if until:
        reached = known(row.time_to_metric_s, duration)
        cells[f"to {until.text()}"] = "never reached" if row.never_reached else reached
    return cells


def _time(seconds: float | None, is_extrapolated: bool) -> str:
    return known(seconds, duration) + " *" * is_extrapolated


def _mean(study: StudyFigures, mean: Estimate | None) -> str:
    """`val_loss 2.5000 ± 0.1000 [2.3758, 2.6242]`, with a mark where runs are missing."""
    if not mean:
        return _NOTHING
    text = f"{study.metric} {real(mean.mean)}"
    if mean.deviation is not None and mean.interval:
        low, high = map(real, mean.interval)
        text += f" ± {real(mean.deviation)} [{low}, {high}]"
    return f"{text} †" if study.is_partial else text


def _promise(item: PromiseResult) -> tuple[str, str, str, str]:
    """Name, bounds as `at least 0.5, at most 0.7`, measurement, and mark."""
    number = size if item.name.endswith(BYTES) else "{:.3g}".format
    bounds = []
    for bound in ("at_least", "at_most"):
        value = item.promised.get(bound)
        if value is not None:
            bounds.append(f"{bound.replace('_', ' ')} {number(value)}")
    figure = "not measured" if item.measured is None else number(item.measured)
    if item.why is not None:
        figure += f" ({item.why})"
    mark = _MARKS[item.kept]
    return item.name, ", ".join(bounds), figure, f"≈{mark}" if item.planned else mark


def notes(rows: Sequence[ComparisonRow]) -> list[str]:
    """Failures, and explanations of the marks in the tables."""
    lines = []
    for row in rows:
        study = row.study
        if row.error:
            failed = "" if row.error == NOT_RUN else " failed"
            lines.append(f"{row.name}{failed}: {row.error}")
        if study:
            for name, error in study.failed.items():
                lines.append(f"† {row.name} {name} failed: {error}")
            if study.is_partial:
                runs = counted(study.planned, "run")
                lines.append(f"† {row.name}: {study.metric} of {len(study.values)} of {runs}")
        part = render_part(*row.evaluated)
        if part:
            lines.append(f"best metric of {row.name}: over {part}")
    if any(any(row.extrapolated.values()) for row in rows):
        lines.append("* extrapolated from the steps that were run")
    return lines
