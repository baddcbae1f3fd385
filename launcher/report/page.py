"""Rendering of a page from its template, which escapes every value, and of facts as texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.report.plots import COLORS

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
MARK = '<meta name="generator" content="gearshift">'
"""Marks a page as written by this program."""


def render(template: Path, drawn: Mapping[str, Any] | None = None, **values: Any) -> bytes:
    """The page of `template`, which extends base.html, in UTF-8; `drawn` is that of plots.as_json.

    Lone surrogates, as of file names that are not UTF-8, become their escapes. Reads the disk.
    Raises OSError.
    """
    drawn = drawn or {"plots": (), "marks": ()}
    embedded = json.dumps(drawn, separators=(",", ":"), allow_nan=False)
    text = (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            mark=MARK,
            style=(_HERE / "page.css").read_text("utf-8"),
            script=(_HERE / "plots.js").read_text("utf-8"),
            embedded=embedded.replace("<", "\\u003c"),  # no text in it can end the script element
            count=len(drawn["plots"]),
            has_marks=bool(drawn["marks"]),
            **values,
        )
    )
    return text.encode("utf-8", "backslashreplace")


def is_page(path: Path) -> bool:
    """Whether the file at `path` was written by `render`. Reads the disk. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK in file.read(1000)


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["colors"] = COLORS
    return environment


def fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact."""
    return [(str(name).replace("_", " "), cut(fact_text(value))) for name, value in facts.items()]


def cut(text: object) -> str:
    """A text, up to what fits a page."""
    shown = str(text)
    return shown if len(shown) <= 20_000 else f"{shown[:20_000]}…"


def fact_text(value: Any) -> str:
    """A fact as text: numbers in groups of three digits, mappings in a row."""
    if isinstance(value, Mapping):
        texts = {
            name: f"({fact_text(inner)})" if isinstance(inner, Mapping) and inner else fact_text(inner)
            for name, inner in value.items()
        }
        return ", ".join(f"{name} {text}" for name, text in texts.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(fact_text(inner) for inner in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
