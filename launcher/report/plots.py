"""Plots of a page as plain data, thinned out to what a plot can show; plots.js draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import inf
from typing import Any, Literal, TypeVar

Point = tuple[float, float | None]
"""A place on the x axis, and the value there; None: a gap in the line."""
Unit = Literal["number", "bytes", "seconds", "percent", "per second"]
BUCKETS = 1000
"""Pairs of points that the lines of a plot share: about one for each pixel."""
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
    most = 2 * max(BUCKETS // len(plot.lines), 100)
    for line in plot.lines:
        points = line.points
        while len(points) > most:
            points = halved(points)
        yield {
            "name": line.name,
            "color": line.color % COLORS,
            "style": "dashed" if line.dashed else "dotted" if line.color >= COLORS else "",
            "x": [x for x, _ in points],
            "y": [None if y is None else float(f"{y:.6g}") for _, y in points],
        }


def halved(points: Sequence[Point]) -> list[Point]:
    """Half of many points: of each four the lowest and the highest, as which a gap counts; both ends stay."""
    parts = (points[at : min(at + 4, len(points) - 1)] for at in range(1, len(points) - 1, 4))
    return [points[0], *chain.from_iterable(map(_extremes, parts)), points[-1]]


def _extremes(points: Sequence[Point]) -> list[Point]:
    ordered = sorted(points, key=lambda point: inf if point[1] is None else point[1])
    return sorted({ordered[0], ordered[-1]}, key=lambda point: point[0])


def thinned(items: Sequence[_Any], most: int) -> Sequence[_Any]:
    """At most `most` of many, evenly, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]
