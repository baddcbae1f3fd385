"""Plots of a page as plain data, thinned out to what a plot can show; plots.js draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, TypeVar

Point = tuple[float, float | None]
"""A place on the x axis, and the value there; None: a gap in the line."""
Unit = Literal["number", "bytes", "seconds", "percent", "per second"]
BUCKETS = 1000
"""Parts of a line that keep their lowest and highest value: about one for each pixel.

The lines of a plot share them, so that a page of many runs stays small."""
COLORS = 10
"""Number of colors; the page calls them --c0 to --c9."""
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class PlotLine:
    """One line of a plot."""

    name: str
    points: Sequence[Point]
    """By x, which only grows."""
    color: int = 0
    """Number of its color; the same for a run in every plot. Repeated colors are dotted."""
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines over the x axis that all plots of a page share."""

    title: str
    unit: Unit
    lines: Sequence[PlotLine]


@dataclass(frozen=True)
class Mark:
    """An event on the x axis."""

    x: float
    lane: str
    """Its row."""
    text: str
    color: int = 0


def as_json(label: str, plots: Sequence[Plot], marks: Sequence[Mark] = ()) -> dict[str, Any]:
    """For plots.js; `label` is what the x axis counts. Numbers are rounded to what a plot can show."""
    places = [x for plot in plots for line in plot.lines for x, _ in line.points]
    places += [mark.x for mark in marks]
    low, high = min(places, default=0), max(places, default=1)
    return {
        "axis": {"label": label, "low": low, "high": high if high > low else low + 1},
        "plots": [{"title": plot.title, "unit": plot.unit, "lines": list(_lines(plot))} for plot in plots],
        "marks": [asdict(mark) for mark in marks],
    }


def _lines(plot: Plot) -> Iterator[Mapping[str, Any]]:
    for line in plot.lines:
        thinned_line = ThinnedLine(max(BUCKETS // len(plot.lines), 100))
        for point in line.points:
            thinned_line.add(point)
        points = thinned_line.points
        yield {
            "name": line.name,
            "color": line.color % COLORS,
            "style": "dashed" if line.dashed else "dotted" if line.color >= COLORS else "",
            "x": [x for x, _ in points],
            "y": [None if y is None else float(f"{y:.6g}") for _, y in points],
        }


class ThinnedLine:
    """The points of a line while they are read: all of a few, and of many what a plot can show.

    Each of up to `most` equal parts keeps its lowest and highest value and its first gap, so that
    memory stays bounded; the first and the last point stay, too. Nothing is averaged.
    """

    def __init__(self, most: int = 4 * BUCKETS) -> None:
        self._parts: list[Sequence[Point]] = []
        self._most = most + most % 2
        self._each = 1
        """Points of a part."""
        self._open: list[Point] = []
        """Those of the part that is not full."""
        self._first: Point | None = None

    def add(self, point: Point) -> None:
        """Add the next point. One at the same place as the last, or before, replaces that one, as
        a split may be evaluated before and after a resume.
        """
        if self._open and self._open[-1][0] >= point[0]:
            del self._open[-1]
        elif len(self._open) == self._each:
            self._parts.append(_extremes(self._open))
            self._open = []
            if len(self._parts) == self._most:
                halves = zip(self._parts[::2], self._parts[1::2], strict=True)
                self._parts = [_extremes([*first, *other]) for first, other in halves]
                self._each *= 2
        self._open.append(point)
        if self._first is None or self._first[0] >= point[0]:
            self._first = point

    @property
    def points(self) -> list[Point]:
        """By x."""
        points = list(chain(*self._parts, self._open))
        if self._first is not None and points[0] != self._first:
            points.insert(0, self._first)
        return points


def _extremes(points: Sequence[Point]) -> Sequence[Point]:
    """The first gap, and the points with the lowest and the highest value."""
    if len(points) <= 2:
        return points
    values = [(y, x) for x, y in points if y is not None]
    extremes: list[Point] = [(x, y) for y, x in (min(values), max(values))] if values else []
    extremes += [point for point in points if point[1] is None][:1]
    return sorted(dict.fromkeys(extremes), key=lambda point: point[0])


def thinned(items: Sequence[_Any], most: int) -> Sequence[_Any]:
    """At most `most` of many, evenly, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]


def number(value: object) -> float | None:
    """A logged value as a number; None for NaN and infinity. Raises TypeError: it is no number."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return value if math.isfinite(value) else None
    if value in ("NaN", "Infinity", "-Infinity"):
        return None
    raise TypeError("not a number")
