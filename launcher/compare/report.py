"""The files of a comparison: compare.json for programs, compare.html for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from launcher.compare import tables
from launcher.compare.rows import Row, thinned
from launcher.compare.runner import ComparisonFacts, Outcome
from launcher.compare.tables import MARKS, bounds, measured
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
        atomic_write(folder / PAGE, render(facts, outcome).encode())
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


_STYLE = Path(__file__).with_suffix(".css")
_KIND = {True: "good", False: "bad", None: "quiet"}


def render(facts: ComparisonFacts, outcome: Outcome) -> str:
    """The HTML page: tables and plots; no script, no network access."""
    title = escape(f"Compared: {', '.join(dict.fromkeys(row.model for row in outcome.rows))}")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n"
    )
    body = [f"<h1>{title}</h1>", *_body(facts, outcome)]
    return head + "\n".join(["<body>", "<main>", *body, "</main>", "</body>", "</html>\n"])


def _body(facts: ComparisonFacts, outcome: Outcome) -> Iterator[str]:
    yield f'<p class="quiet">{escape(tables.title(facts))}; {facts.at:%Y-%m-%d %H:%M} UTC<br>'
    yield f"<code>{escape(facts.command)}</code></p>"
    for warning in outcome.warnings:
        yield f'<p class="bad">{escape(warning)}</p>'
    yield from _table("Measured", tables.table(outcome.rows, facts.limits.until))
    for row in outcome.rows:
        if row.error is not None:
            yield f'<p class="bad">{escape(row.name)} failed: {escape(row.error)}</p>'
    yield from (
        f'<p class="quiet">{escape(line)}</p>' for line in tables.legend(outcome.rows, facts)
    )
    yield from _promises(outcome.rows)
    yield from _plots(outcome.rows)
    for row in outcome.rows:
        for note in row.notes:
            yield f'<p class="quiet">{escape(row.name)}: {escape(note)}</p>'


def _table(caption: str, rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> Iterator[str]:
    """A table below its heads; `kinds`: the style of the last cell of each row."""
    head, *body = rows
    yield f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n<thead><tr>'
    yield "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    yield "</tr></thead>\n<tbody>"
    for number, (*cells, last) in enumerate(body):
        kind = f' class="{kinds[number]}"' if kinds else ""
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f"<tr>{texts}<td{kind}>{escape(last)}</td></tr>"
    yield "</tbody>\n</table></div>"


def _promises(rows: Sequence[Row]) -> Iterator[str]:
    found = [(row.name, item) for row in rows for item in row.promises]
    cells = [
        (mode, item.name.replace("_", " "), bounds(item), measured(item), MARKS[item.kept])
        for mode, item in found
    ]
    if found:
        head = ("mode", "promise", "promised", "measured", "")
        kinds = [_KIND[item.kept] for _, item in found]
        yield from _table("Promised, beside mode default", [head, *cells], kinds)


def _plots(rows: Sequence[Row]) -> Iterator[str]:
    steps = [
        Bar(row.name, [row.step_s], row.step_spread_s, colour)
        for colour, row in enumerate(rows)
        if row.step_s is not None
    ]
    if steps:
        yield bars("A step: median, and its quartiles", steps, _seconds)
    for title, name in (
        ("Peak memory of the device", "device_peak_bytes"),
        ("Peak memory of the host, whole process", "host_peak_bytes"),
        ("Peak memory of the model and its data, without the program itself", _MODEL_PEAK),
    ):
        known = [
            Bar(row.name, [value], colour=colour)
            for colour, row in enumerate(rows)
            if (value := getattr(row, name)) is not None
        ]
        if known:
            yield bars(title, known, size)
    parts = next((list(row.time_split_s) for row in rows if row.time_split_s), [])
    split = [Bar(r.name, [r.time_split_s[p] for p in parts]) for r in rows if r.time_split_s]
    if split:
        yield bars("Where the time of an epoch goes", split, duration, parts)
    yield from _curves(rows)


_MODEL_PEAK = "peak_memory_bytes"


def _curves(rows: Sequence[Row]) -> Iterator[str]:
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    for title, name in (
        (f"{metric} over the time of training", "curve"),
        ("Training loss over the time of training", "losses"),
    ):
        series = [
            Line(row.name, thinned([p for p in getattr(row, name) if math.isfinite(p[1])]), colour)
            for colour, row in enumerate(rows)
        ]
        drawn = [item for item in series if len(item.points) > 1]
        if drawn:
            yield lines(title, drawn, "s")


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


Format = Callable[[float], str]
_WIDTH, _LEFT, _RIGHT = 860, 210, 110
_BAR, _GAP = 20, 12
_HEIGHT, _MARGIN = 260, 44
SERIES = 6
"""Number of colours; the page calls them --c0 to --c5."""


@dataclass(frozen=True)
class Bar:
    """One bar of a bar plot."""

    name: str
    parts: Sequence[float]
    """Stacked values; a single value is a plain bar."""
    whisker: tuple[float, float] | None = None
    colour: int = 0
    """Number of its colour; the same for a row in every plot."""


@dataclass(frozen=True)
class Line:
    """Points (x, y) of one series."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


def bars(title: str, rows: Sequence[Bar], render: Format, parts: Sequence[str] = ()) -> str:
    """Horizontal bars from 0, each labelled by `render`; `parts` names the stacked values."""
    top = 26 if parts else 6
    height = top + len(rows) * (_BAR + _GAP) + 6
    most = max((max(sum(row.parts), (row.whisker or (0, 0))[1]) for row in rows), default=0) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    inner = [*_key(parts, range(len(parts)))]
    for number, row in enumerate(rows):
        inner += _bar(row, top + number * (_BAR + _GAP), scale, render, bool(parts))
    return _figure(title, height, inner)


def lines(title: str, series: Sequence[Line], x: str) -> str:
    """Lines over a common time axis, with a key and the ends of both axes."""
    points = [point for item in series for point in item.points]
    (x_low, x_high), (y_low, y_high) = _ends([p[0] for p in points]), _ends([p[1] for p in points])
    top = 22 * -(-len(series) // 3) + 8

    def position(point: tuple[float, float]) -> str:
        across = (point[0] - x_low) / (x_high - x_low)
        up = (point[1] - y_low) / (y_high - y_low)
        left = 70 + across * (_WIDTH - 70 - 20)
        return f"{left:.1f},{top + (1 - up) * (_HEIGHT - _MARGIN):.1f}"

    bottom = top + _HEIGHT - _MARGIN
    inner = [*_key([item.name for item in series], [item.colour for item in series], columns=3)]
    inner.append(f'<path class="axis" d="M70 {top}V{bottom}H{_WIDTH - 20}"/>')
    for text, left, at, anchor in (
        (f"{y_high:.4g}", 64.0, top + 10, "end"),
        (f"{y_low:.4g}", 64, bottom, "end"),
        (f"{x_low:.3g}", 70, bottom + 18, "middle"),
        (f"{x_high:.3g} {x}", _WIDTH - 20, bottom + 18, "end"),
    ):
        inner.append(_text(text, left, at, anchor, "quiet"))
    for item in series:
        colour = f"var(--c{item.colour % SERIES})"
        path = " ".join(position(point) for point in item.points)
        inner.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(item.points) < 40:
            for point in item.points:
                x_at, _, y_at = position(point).partition(",")
                inner.append(f'<circle cx="{x_at}" cy="{y_at}" r="3" fill="{colour}"/>')
    return _figure(title, bottom + 26, inner)


def _bar(row: Bar, top: float, scale: float, render: Format, stacked: bool) -> Iterator[str]:
    middle = top + _BAR / 2 + 5
    yield _text(row.name, _LEFT - 10, middle, "end")
    left = float(_LEFT)
    for part, value in enumerate(row.parts):
        colour = part if stacked else row.colour
        yield (
            f'<rect x="{left:.1f}" y="{top}" width="{value * scale:.1f}" height="{_BAR}" '
            f'fill="var(--c{colour % SERIES})"/>'
        )
        left += value * scale
    if row.whisker is not None:
        low, high = (_LEFT + end * scale for end in row.whisker)
        y = top + _BAR / 2
        yield (
            f'<path class="whisker" d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 5}v10'
            f'M{high:.1f} {y - 5}v10"/>'
        )
        left = max(left, high)
    yield _text(render(sum(row.parts)), left + 8, middle, "start")


def _key(names: Sequence[str], colours: Sequence[int], columns: int = SERIES) -> Iterator[str]:
    width = (_WIDTH - 70) / min(columns, max(len(names), 1))
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        left, top = 70 + number % columns * width, 6 + number // columns * 22
        yield (
            f'<rect x="{left:.0f}" y="{top}" width="12" height="12" '
            f'fill="var(--c{colour % SERIES})"/>'
        )
        yield _text(name, left + 18, top + 11, "start")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(text: str, left: float, top: float, anchor: str, kind: str = "label") -> str:
    return (
        f'<text class="{kind}" x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _figure(title: str, height: float, inner: Sequence[str]) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(inner)}</svg></figure>"
    )
