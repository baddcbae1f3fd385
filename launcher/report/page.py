"""Pages from templates, which escape every value; facts as texts, plots as data for plots.js."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging.console_text import render_facts

_HERE = Path(__file__).parent
MARK = '<meta name="generator" content="gearshift">'
"""Marks a page as written by this program."""
Point = tuple[float, float | None]
"""A place on the x axis, and the value there; None: a gap in the line."""
Unit = Literal["number", "bytes", "seconds", "percent", "per second"]
UNKNOWN = "–"
COLORS = 10
"""Number of colors; the page calls them --c0 to --c9."""
_MOST_CHARACTERS = 20_000
_Any = TypeVar("_Any")


def render(template: Path, plots: Sequence[Facts] = (), **values: Any) -> bytes:
    """The page of `template`, which extends base.html, in UTF-8.

    Its `plots` are drawn by plots.js over one x axis.

    Lone surrogates, as of file names that are not UTF-8, become their escapes. Reads the disk.
    Raises OSError.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["colors"] = COLORS
    # JavaScript parses no NaN: a gap is null.
    drawn = {"plots": plots}
    embedded = json.dumps(drawn, separators=(",", ":"), allow_nan=False)
    text = environment.get_template(template.name).render(
        mark=MARK,
        style=(_HERE / "page.css").read_text("utf-8"),
        script=(_HERE / "plots.js").read_text("utf-8"),
        embedded=embedded.replace("<", "\\u003c"),  # no text in it can end the script element
        count=len(plots),
        **values,
    )
    return text.encode("utf-8", "backslashreplace")


def fact_rows(facts: Facts) -> list[tuple[str, str]]:
    """Name and text of each fact, cut to what fits a page."""
    rows = []
    for name, value in facts.items():
        text = fact_text(value)
        if len(text) > _MOST_CHARACTERS:
            text = f"{text[:_MOST_CHARACTERS]}…"
        rows.append((str(name).replace("_", " "), text))
    return rows


def fact_text(value: Any) -> str:
    """A fact as text: sentences and names of a list apart, all else as on the console."""
    if isinstance(value, Mapping):
        return render_facts(value) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(fact_text, value)) or "none"
    _, _, text = render_facts({"fact": value}).partition(" ")
    return text


class PlotLine(NamedTuple):
    """One line of a plot."""

    name: str
    points: Sequence[Point]
    """By x, which only grows."""
    color: int = 0
    """Number of its color; the same for a run in every plot. Repeated colors are dotted."""
    dashed: bool = False


def plot(title: str, unit: Unit, lines: Sequence[PlotLine]) -> Json:
    """A plot for plots.js. Numbers are rounded to what it can show."""
    curves = []
    for name, points, color, dashed in lines:
        style = "dotted" if color >= COLORS else ""
        if dashed:
            style = "dashed"
        curves.append(
            {
                "name": name,
                "color": color % COLORS,
                "style": style,
                "x": [x for x, _ in points],
                "y": [_number(y) for _, y in points],
            }
        )
    return {"title": title, "unit": unit, "lines": curves}


def _number(value: float | None) -> float | None:
    """A number as a plot shows it; None: a gap."""
    return float(f"{value:.6g}") if value is not None and isfinite(value) else None


def thinned(items: Sequence[_Any], most: int) -> Sequence[_Any]:
    """At most `most` of many, evenly, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]


def known(value: Any, text_of: Callable[[Any], str] = str) -> str:
    """The text of a value; a dash for None."""
    return UNKNOWN if value is None else text_of(value)
