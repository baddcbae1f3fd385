"""Rendering of a page from its template: every value that a template shows is escaped as text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.page import plots

if TYPE_CHECKING:
    from jinja2 import Environment

    from launcher.page.plots import Plots

_HERE = Path(__file__).parent
MARK = '<meta name="generator" content="gearshift">'
"""Marks a page as written by this program."""
_HEAD = 1000
"""Characters within which the mark stands."""


def render(template: Path, drawn: Plots | None = None, **values: Any) -> bytes:
    """The page of `template`, which extends base.html, in UTF-8. Reads the disk.

    Lone surrogates, as of file names that are not UTF-8, become their escapes. Raises OSError.
    """
    count, has_marks = (len(drawn.plots), bool(drawn.marks)) if drawn else (0, False)
    text = (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            mark=MARK,
            style=(_HERE / "page.css").read_text("utf-8"),
            scripts=plots.scripts() if count or has_marks else "",
            plots=_embedded(drawn.as_json()) if drawn else "",
            count=count,
            has_marks=has_marks,
            **values,
        )
    )
    return text.encode("utf-8", "backslashreplace")


def is_page(path: Path) -> bool:
    """Whether the file at `path` was written by `render`. Reads the disk. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK in file.read(_HEAD)


def _embedded(value: Any) -> str:
    """JSON for a script element: `<` is escaped, so that no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["colors"] = plots.COLORS
    return found
