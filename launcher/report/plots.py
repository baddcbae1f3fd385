"""Plots of a page as plain data; plots.js draws them in the browser with BokehJS."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

Point = tuple[float, float | None]
"""A place on the x axis, and the value there; None: a gap in the line."""
Unit = Literal["number", "bytes", "seconds", "percent", "per second"]
BUCKETS = 1000
"""Parts of a line that keep their lowest and highest value: about one for each pixel.

The lines of a plot share them, so that a page of many runs stays small."""
COLORS = 10
"""Number of colors; the page calls them --c0 to --c9."""


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
    """Lines over a common x axis."""

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


@dataclass(frozen=True)
class Axis:
    """The x axis of all plots of a page."""

    label: str
    """What it counts: `step`."""
    low: float
    high: float


@dataclass(frozen=True)
class Plots:
    """All plots of a page: they share the x axis, also when one of them is zoomed."""

    axis: Axis
    plots: Sequence[Plot]
    marks: Sequence[Mark] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """For plots.js: each line thinned out, and rounded to what a plot can show."""
        return {
            "axis": asdict(self.axis),
            "plots": [
                {"title": plot.title, "unit": plot.unit, "lines": list(_lines(plot))} for plot in self.plots
            ],
            "marks": [asdict(mark) for mark in self.marks],
        }


def _lines(plot: Plot) -> Iterator[Mapping[str, Any]]:
    buckets = max(BUCKETS // len(plot.lines), 100)
    for line in plot.lines:
        points = decimated(line.points, buckets)
        yield {
            "name": line.name,
            "color": line.color % COLORS,
            "style": "dashed" if line.dashed else "dotted" if line.color >= COLORS else "",
            "x": [x for x, _ in points],
            "y": [None if y is None else float(f"{y:.6g}") for _, y in points],
        }


def decimated(points: Sequence[Point], buckets: int) -> Sequence[Point]:
    """`points` without those that a plot of `buckets` pixels cannot show.

    Each of `buckets` equal parts keeps its first gap and its lowest and highest value, so that no
    spike and no gap is lost; the first and the last point stay, too. Nothing is averaged.
    """
    if len(points) <= 2 * buckets:
        return points
    ends = [number * len(points) // buckets for number in range(buckets + 1)]
    parts = [_extremes(points[start:end]) for start, end in pairwise(ends)]
    return list(dict.fromkeys([points[0], *chain(*parts), points[-1]]))


class ThinnedLine:
    """The points of a line while they are read: all of a few, and of many what a plot can show.

    Each of equal parts keeps its lowest and highest value and its first gap, so that memory stays
    bounded; the first and the last point stay, too.
    """

    def __init__(self) -> None:
        self._parts: list[Sequence[Point]] = []
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
            if len(self._parts) == 4 * BUCKETS:
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
    kept: list[Point] = [(x, y) for y, x in (min(values), max(values))] if values else []
    kept += [point for point in points if point[1] is None][:1]
    return sorted(dict.fromkeys(kept), key=lambda point: point[0])


def number(value: object) -> float | None:
    """A logged value as a number; None for NaN and infinity. Raises TypeError: it is no number."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return value if math.isfinite(value) else None
    if value in ("NaN", "Infinity", "-Infinity"):
        return None
    raise TypeError("not a number")


@cache
def scripts() -> str:
    """BokehJS, from the installed package, which is not imported: that takes half a second.

    Reads the disk. Raises OSError.
    """
    spec = importlib.util.find_spec("bokeh")
    if spec is None or spec.submodule_search_locations is None:
        raise FileNotFoundError("the package bokeh is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "server/static/js"
    drawing = Path(__file__).with_name("plots.js")
    files = (folder / "bokeh.min.js", folder / "bokeh-api.min.js", drawing)
    return "\n".join(path.read_text("utf-8") for path in files)
