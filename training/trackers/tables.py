"""Tables as Markdown, in which no letter of a text means anything but itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from models.base import Predictions

_PLAIN = frozenset(" ,;:.'\"/?=%@")


def predictions(found: Predictions) -> str:
    """A row a sample, and below it what the pictures show."""
    rows = ([_number(cell) for cell in row] for row in found.rows)
    captions = [f"{picture.name}: {_plain(picture.caption)}" for picture in found.pictures]
    return "\n\n".join([_table(found.columns, rows), *captions])


def settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """A row a setting, with what decided it."""
    rows = ((key, str(value), origins.get(key, "")) for key, value in values.items())
    return _table(("setting", "value", "from"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [columns, *rows]
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def _number(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def _plain(text: str) -> str:
    """`text` with all that Markdown or HTML would take for its own as character references."""
    return "".join(
        "<br>" if c == "\n" else c if c.isalnum() or c in _PLAIN else f"&#{ord(c)};" for c in text
    )
