"""The comparison as a person reads it on a terminal: one table, and the promises below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.compare import words
from launcher.compare.words import MARKS

if TYPE_CHECKING:
    from launcher.compare.match import Facts, Outcome


def text(facts: Facts, outcome: Outcome, folder: Path) -> str:
    """All of it, the paths of the files last."""
    return "\n".join(_lines(facts, outcome, folder))


def _lines(facts: Facts, outcome: Outcome, folder: Path) -> Iterator[str]:
    yield ""
    yield words.title(facts)
    yield ""
    head, *body = words.table(outcome.rows, facts.limits.until)
    yield from _columns([head, *body])
    for row in outcome.rows:
        if row.error is not None:
            yield f"{row.name} failed: {row.error}"
    yield from words.legend(outcome.rows, facts)
    promised = [row for row in outcome.rows if row.promises]
    if promised:
        yield ""
        yield from _columns(
            [("promise", "promised", "measured", ""), *_promises(outcome)], gap="  "
        )
    for doubt in outcome.warnings:
        yield f"note: {doubt}"
    yield ""
    yield f"{folder / 'compare.html'} shows it; {folder / 'compare.json'} is for machines"


def _promises(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for row in outcome.rows:
        if row.promises:
            yield (row.name, "", "", "")
        for one in row.promises:
            yield (
                f"  {one.name}",
                words.bounds(one),
                words.measured(one),
                MARKS[one.kept],
            )


def _columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield gap.join(cells).rstrip()
