"""Plots as SVG that stands in a page: bars with whiskers, stacked bars, lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

Said = Callable[[float], str]
_WIDTH, _LEFT, _RIGHT = 860, 210, 110
_BAR, _GAP = 20, 12
_HEIGHT, _MARGIN = 260, 44
SERIES = 6
"""Colours there are; the page names them --c0 to --c5."""


@dataclass(frozen=True)
class Bar:
    """A row of a bar plot."""

    name: str
    parts: Sequence[float]
    """Stacked; one is a plain bar."""
    whisker: tuple[float, float] | None = None
    colour: int = 0
    """Of a plain bar: the same for a row in every plot."""


@dataclass(frozen=True)
class Line:
    """Points (x, y) of one series."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


def bars(title: str, rows: Sequence[Bar], said: Said, parts: Sequence[str] = ()) -> str:
    """Horizontal bars that begin at 0, each with what it is `said` to be; `parts` are a key."""
    top = 26 if parts else 6
    height = top + len(rows) * (_BAR + _GAP) + 6
    most = max((max(sum(row.parts), (row.whisker or (0, 0))[1]) for row in rows), default=0) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    inner = [*_key(parts, range(len(parts)))]
    for number, row in enumerate(rows):
        inner += _bar(row, top + number * (_BAR + _GAP), scale, said, bool(parts))
    return _figure(title, height, inner)


def lines(title: str, series: Sequence[Line], x: str) -> str:
    """Lines over a common time axis, with a key and the ends of both axes."""
    points = [point for one in series for point in one.points]
    (x_low, x_high), (y_low, y_high) = _ends([p[0] for p in points]), _ends([p[1] for p in points])
    top = 22 * -(-len(series) // 3) + 8

    def place(point: tuple[float, float]) -> str:
        across = (point[0] - x_low) / (x_high - x_low)
        up = (point[1] - y_low) / (y_high - y_low)
        left = 70 + across * (_WIDTH - 70 - 20)
        return f"{left:.1f},{top + (1 - up) * (_HEIGHT - _MARGIN):.1f}"

    bottom = top + _HEIGHT - _MARGIN
    inner = [*_key([one.name for one in series], [one.colour for one in series], columns=3)]
    inner.append(f'<path class="axis" d="M70 {top}V{bottom}H{_WIDTH - 20}"/>')
    for text, left, at, anchor in (
        (f"{y_high:.4g}", 64.0, top + 10, "end"),
        (f"{y_low:.4g}", 64, bottom, "end"),
        (f"{x_low:.3g}", 70, bottom + 18, "middle"),
        (f"{x_high:.3g} {x}", _WIDTH - 20, bottom + 18, "end"),
    ):
        inner.append(_text(text, left, at, anchor, "quiet"))
    for one in series:
        colour = f"var(--c{one.colour % SERIES})"
        path = " ".join(place(point) for point in one.points)
        inner.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(one.points) < 40:
            for point in one.points:
                x_at, _, y_at = place(point).partition(",")
                inner.append(f'<circle cx="{x_at}" cy="{y_at}" r="3" fill="{colour}"/>')
    return _figure(title, bottom + 26, inner)


def _bar(row: Bar, top: float, scale: float, said: Said, stacked: bool) -> Iterator[str]:
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
    yield _text(said(sum(row.parts)), left + 8, middle, "start")


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
