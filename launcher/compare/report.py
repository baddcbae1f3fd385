"""The files of a comparison: compare.json for programs, compare.html for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from launcher.compare import tables
from launcher.compare.promises import PromiseResult
from launcher.compare.rows import Row, thinned
from launcher.compare.runner import ComparisonFacts, Outcome
from launcher.compare.tables import MARKS, bounds, measured
from launcher.report import page
from launcher.report.plots import Axis, Line, Plot, Plots
from training.logging.quantities import duration, size
from training.logging.strict_json import encode
from training.storage import atomic_write, storage_errors

JSON_FILE = "compare.json"
PAGE = "compare.html"


def write(folder: Path, facts: ComparisonFacts, outcome: Outcome) -> str:
    """Write both files into `folder`; gives the text of compare.json. Touches the disk.

    Raises StorageError.
    """
    content = encode(_content(facts, outcome), indent=2)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / JSON_FILE, f"{content}\n".encode())
        atomic_write(folder / PAGE, render(facts, outcome))
    return content


def _content(facts: ComparisonFacts, outcome: Outcome) -> dict[str, Any]:
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
        "warnings": list(outcome.warnings),
        "rows": [_row(row) for row in outcome.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    content = asdict(row)
    for name in ("curve", "losses"):
        content[name] = thinned(content[name])
    return content


_TEMPLATE = Path(__file__).with_suffix(".html")
_KIND = {True: "good", False: "bad", None: "quiet"}
_MODEL_PEAK = "peak_memory_bytes"
Format = Callable[[float], str]


def render(facts: ComparisonFacts, outcome: Outcome) -> bytes:
    """The HTML page: tables and plots, without network access. Reads the disk."""
    rows = outcome.rows
    head, *lines = tables.table(rows, facts.limits.until)
    return page.render(
        _TEMPLATE,
        _curves(rows),
        title=f"Compared: {', '.join(dict.fromkeys(row.model for row in rows))}",
        line=f"{tables.title(facts)}; {facts.at:%Y-%m-%d %H:%M} UTC",
        command=facts.command,
        warnings=list(outcome.warnings),
        head=head,
        lines=lines,
        failures=[row.failure for row in rows if row.error is not None],
        legend=list(tables.legend(rows, facts)),
        promises=[_promise(row.name, item) for row in rows for item in row.promises],
        bars=list(_bars(rows)),
        notes=[f"{row.name}: {note}" for row in rows for note in row.notes],
    )


def _promise(mode: str, item: PromiseResult) -> tuple[str, ...]:
    """The cells of a promise, the style of the last one before it."""
    name = item.name.replace("_", " ")
    return mode, name, bounds(item), measured(item), _KIND[item.kept], MARKS[item.kept]


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


def _bars(rows: Sequence[Row]) -> Iterator[BarPlot]:
    spreads = [row.step_spread_s for row in rows]
    yield from _plain("A step: median, and its quartiles", rows, "step_s", _seconds, spreads)
    for title, name in (
        ("Peak memory of the device", "device_peak_bytes"),
        ("Peak memory of the host, whole process", "host_peak_bytes"),
        ("Peak memory of the model and its data, without the program itself", _MODEL_PEAK),
    ):
        yield from _plain(title, rows, name, size)
    split = [row for row in rows if row.time_split_s]
    if split:
        parts = list(dict.fromkeys(part for row in split for part in row.time_split_s))
        scale = 100 / (max(sum(row.time_split_s.values()) for row in split) or 1)
        found = [
            Bar(
                row.name,
                [(row.time_split_s.get(part, 0.0) * scale, at) for at, part in enumerate(parts)],
                duration(sum(row.time_split_s.values())),
            )
            for row in split
        ]
        yield BarPlot("Where the time of an epoch goes", found, parts)


def _plain(
    title: str,
    rows: Sequence[Row],
    name: str,
    text: Format,
    whiskers: Sequence[tuple[float, float] | None] = (),
) -> Iterator[BarPlot]:
    """The bars of one measure, as far as it was measured."""
    ends = [whisker or (0.0, 0.0) for whisker in whiskers] or [(0.0, 0.0)] * len(rows)
    values = [getattr(row, name) for row in rows]
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    scale = 100 / (max((max(value, ends[at][1]) for at, value in known), default=0) or 1)
    if known:
        found = [
            Bar(
                rows[at].name,
                [(value * scale, at)],
                text(value),
                (ends[at][0] * scale, (ends[at][1] - ends[at][0]) * scale) if ends[at][1] else None,
            )
            for at, value in known
        ]
        yield BarPlot(title, found)


def _curves(rows: Sequence[Row]) -> Plots:
    """Metric and loss over the seconds of training."""
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    plots = []
    for title, name in ((metric, "curve"), ("Training loss", "losses")):
        lines = [
            Line(row.name, [(x, y if math.isfinite(y) else None) for x, y in points], color)
            for color, row in enumerate(rows)
            if (points := getattr(row, name))
        ]
        if lines:
            plots.append(Plot(f"{title} over the seconds of training", "number", lines))
    ends = [x for plot in plots for x, _ in chain.from_iterable(n.points for n in plot.lines)]
    return Plots(Axis("second", 0, max(ends, default=0) or 1), plots)


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
