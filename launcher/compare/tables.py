"""The tables of a comparison, for the terminal and for the HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base.diagnostics import counted
from training.logging.console_text import render_part
from training.logging.quantities import amount, duration, real, size

if TYPE_CHECKING:
    from launcher.compare.promises import PromiseResult
    from launcher.compare.rows import Row
    from launcher.compare.runner import ComparisonFacts, Outcome
    from training.evaluation.early_stopping import Target

NOTHING = "–"
MARKS = {True: "✓", False: "✗", None: ""}
_EXTRAPOLATED = " *"


def title(facts: ComparisonFacts) -> str:
    """The title: machine, device, repeats and limits."""
    limits = facts.limits
    far = "to completion"
    if limits.steps is not None:
        far = f"for {counted(limits.steps, 'step')}"
    elif limits.epochs is not None:
        far = f"for {limits.epochs:g} epoch" + ("" if limits.epochs == 1 else "s")
    elif limits.until is not None:
        far = f"until {limits.until.text()}"
    often = "" if facts.repeats == 1 else f", {facts.repeats} times in turns"
    return f"on {facts.machine}; each run {far}{often}"


def table(rows: Sequence[Row], until: Target | None) -> list[tuple[str, ...]]:
    """The header and one line per row."""
    units = sorted({row.units for row in rows if row.units_per_s is not None} - {"samples"})
    per_s = [f"{units[0] if len(units) == 1 else 'units'}/s"] if units else []
    to_metric = () if until is None else (f"to {until.text()}",)
    head = (
        *("mode", "engine", "samples", "parameters", "step", "epoch", "whole run", "samples/s"),
        *(*per_s, "device", "host", "growth", "best metric", *to_metric),
    )
    return [head, *(_line(row, per_s, until is not None) for row in rows)]


def _line(row: Row, per_s: Sequence[str], has_goal: bool) -> tuple[str, ...]:
    """The cells of a row; `per_s`: the column of units per second, if there is one."""
    mode = row.mode if row.stage is None else f"{row.mode} · {row.stage}"
    units = _of(amount, row.units_per_s)
    if row.units_per_s is not None and f"{row.units}/s" not in per_s:
        units += f" {row.units}"
    cells = (
        mode,
        row.engine,
        NOTHING if row.samples is None else f"{row.samples:,}",
        _of(amount, row.parameters),
        step(row),
        _of(duration, row.epoch_s) + _mark(row.epoch_s, row.extrapolated.epoch),
        _of(duration, row.total_s) + _mark(row.total_s, row.extrapolated.total),
        _of(amount, row.samples_per_s),
        *([units] if per_s else []),
        _of(size, row.device_peak_bytes),
        _of(size, row.host_peak_bytes),
        _of(size, row.peak_memory_bytes),
        metric(row),
    )
    return (*cells, to_metric(row)) if has_goal else cells


def step(row: Row) -> str:
    """Median and half the interquartile range: `38.2 ms ± 0.4`."""
    if row.step_s is None or row.step_spread_s is None:
        return NOTHING
    spread = (row.step_spread_s[1] - row.step_spread_s[0]) / 2
    if row.step_s < 1:
        return f"{row.step_s * 1e3:.1f} ms ± {spread * 1e3:.1f}"
    return f"{row.step_s:.2f} s ± {spread:.2f}"


def metric(row: Row) -> str:
    """The best evaluation."""
    if row.metric is None:
        return NOTHING
    return f"{row.metric['metric']} {real(float(row.metric['value']))}"


def to_metric(row: Row) -> str:
    """The time to the metric, or `never reached`."""
    if row.time_to_metric_s is not None:
        return duration(row.time_to_metric_s)
    return "never reached" if row.never_reached else NOTHING


def legend(rows: Sequence[Row], facts: ComparisonFacts) -> Iterator[str]:
    """Explanations of the marks in the table."""
    if any(row.extrapolated.epoch or row.extrapolated.total for row in rows):
        yield "* extrapolated from the steps that were run"
    if all(row.device_peak_bytes is None for row in rows):
        yield "device memory: not measured, no GPU"
    for row in rows:
        if part := render_part(*row.evaluated):
            yield f"best metric of {row.name}: over {part}"
    digests = {row.architecture for row in rows if row.architecture is not None}
    if len(rows) > 1 and len(digests) == 1:
        yield "all rows have the same parameter names and shapes"


def bounds(item: PromiseResult) -> str:
    """`at most 0.34`, `1`, `0.5 to 0.7`; bytes with their unit."""
    least, most = item.promised.get("at_least"), item.promised.get("at_most")
    if least is not None and most is not None:
        same = least == most
        return _number(item, least) if same else f"{_number(item, least)} to {_number(item, most)}"
    if least is not None:
        return f"at least {_number(item, least)}"
    return NOTHING if most is None else f"at most {_number(item, most)}"


def measured(item: PromiseResult) -> str:
    """The measured ratio, or why there is none."""
    if item.measured is not None:
        return _number(item, item.measured)
    if item.kept is False:
        return item.why or NOTHING
    return (
        f"not measured ({item.why})" if item.why and item.why != "not measured" else "not measured"
    )


def _number(item: PromiseResult, value: float) -> str:
    return size(value) if item.name.endswith("_bytes") else f"{value:.3g}"


def _of(render: object, value: float | None) -> str:
    assert callable(render)
    return NOTHING if value is None else str(render(value))


def _mark(value: float | None, extrapolated: bool) -> str:
    return _EXTRAPOLATED if extrapolated and value is not None else ""


def text(facts: ComparisonFacts, outcome: Outcome, folder: Path) -> str:
    """The whole comparison for a terminal; the paths of the files last."""
    return "\n".join(_lines(facts, outcome, folder))


def _lines(facts: ComparisonFacts, outcome: Outcome, folder: Path) -> Iterator[str]:
    yield ""
    yield title(facts)
    yield ""
    head, *body = table(outcome.rows, facts.limits.until)
    yield from _columns([head, *body])
    for row in outcome.rows:
        if row.error is not None:
            yield row.failure
    yield from legend(outcome.rows, facts)
    promised = [row for row in outcome.rows if row.promises]
    if promised:
        yield ""
        yield from _columns(
            [("promise", "promised", "measured", ""), *_promises(outcome)], gap="  "
        )
    for warning in outcome.warnings:
        yield f"note: {warning}"
    yield ""
    yield f"report: {folder / 'compare.html'}; JSON: {folder / 'compare.json'}"


def _promises(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for row in outcome.rows:
        if row.promises:
            yield (row.name, "", "", "")
        for item in row.promises:
            yield f"  {item.name}", bounds(item), measured(item), MARKS[item.kept]


def _columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> Iterator[str]:
    widths = [max(len(row[position]) for row in rows) for position in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield gap.join(cells).rstrip()
