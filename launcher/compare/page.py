"""One page of HTML on a comparison: the table, the promises, plots; no script, no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from launcher.compare import plots, words
from launcher.compare.plots import Bar, Line
from launcher.compare.rows import thinned
from launcher.compare.words import MARKS
from training.logging.quantities import duration, size

if TYPE_CHECKING:
    from launcher.compare.match import Facts, Outcome
    from launcher.compare.promises import Judged
    from launcher.compare.rows import Row

_STYLE = """
:root { color-scheme: light dark; --line: #c8ccd4; --quiet: #5a6270; --good: #1a7f37;
  --bad: #b42318; --ink: #1c2330; --c0: #2f6fde; --c1: #d9730d; --c2: #1d8f6a; --c3: #a347ba;
  --c4: #b3861b; --c5: #c0394f; }
@media (prefers-color-scheme: dark) { :root { --line: #3d434d; --quiet: #a0a8b6;
  --good: #4ac26b; --bad: #ff8a80; --ink: #e6e9ef; --c0: #6ea8ff; --c1: #ffa657; --c2: #56d4a8;
  --c3: #d493e8; --c4: #e3c05a; --c5: #ff8095; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-top: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; }
code { overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; max-width: 60rem; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
svg { width: 100%; height: auto; }
svg text { font-size: 14px; fill: var(--ink); } svg text.quiet { fill: var(--quiet); }
.axis { fill: none; stroke: var(--line); } .whisker { fill: none; stroke: var(--ink); }
.quiet { color: var(--quiet); } .good { color: var(--good); } .bad { color: var(--bad); }
"""
_KIND = {True: "good", False: "bad", None: "quiet"}


def render(facts: Facts, outcome: Outcome) -> str:
    """The page; it opens without a network."""
    title = escape(f"Compared: {', '.join(dict.fromkeys(row.model for row in outcome.rows))}")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
    )
    body = [f"<h1>{title}</h1>", *_body(facts, outcome)]
    return head + "\n".join(["<body>", "<main>", *body, "</main>", "</body>", "</html>\n"])


def _body(facts: Facts, outcome: Outcome) -> Iterator[str]:
    yield f'<p class="quiet">{escape(words.title(facts))}; {facts.at:%Y-%m-%d %H:%M} UTC<br>'
    yield f"<code>{escape(facts.command)}</code></p>"
    for doubt in outcome.warnings:
        yield f'<p class="bad">{escape(doubt)}</p>'
    yield from _table("Measured", words.table(outcome.rows, facts.limits.until))
    for row in outcome.rows:
        if row.error is not None:
            yield f'<p class="bad">{escape(row.name)} failed: {escape(row.error)}</p>'
    yield from (
        f'<p class="quiet">{escape(line)}</p>' for line in words.legend(outcome.rows, facts)
    )
    yield from _promises(outcome.rows)
    yield from _plots(outcome.rows)
    yield from _notes(outcome.rows)


def _table(caption: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n<thead><tr>'
    yield "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    yield "</tr></thead>\n<tbody>"
    for cells in body:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody>\n</table></div>"


def _promises(rows: Sequence[Row]) -> Iterator[str]:
    if not any(row.promises for row in rows):
        return
    yield '<div class="wide"><table>\n<caption>Promised, beside mode default</caption>\n<thead><tr>'
    for cell in ("mode", "promise", "promised", "measured", ""):
        yield f'<th scope="col">{cell}</th>'
    yield "</tr></thead>\n<tbody>"
    for row in rows:
        for one in row.promises:
            yield _promise(row, one)
    yield "</tbody>\n</table></div>"


def _promise(row: Row, one: Judged) -> str:
    cells = (row.name, one.name.replace("_", " "), words.bounds(one), words.measured(one))
    told = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr>{told}<td class="{_KIND[one.kept]}">{MARKS[one.kept]}</td></tr>'


def _plots(rows: Sequence[Row]) -> Iterator[str]:
    steps = [
        Bar(row.name, [row.step_s], row.step_spread_s, colour)
        for colour, row in enumerate(rows)
        if row.step_s is not None
    ]
    if steps:
        yield plots.bars("A step: median, and its quartiles", steps, _seconds)
    for title, name in (
        ("Peak memory of the device", "device_peak_bytes"),
        ("Peak memory of the host, whole process", "host_peak_bytes"),
        ("Peak memory where tensors live, without what the program itself takes", _LIVE),
    ):
        known = [
            Bar(row.name, [value], colour=colour)
            for colour, row in enumerate(rows)
            if (value := getattr(row, name)) is not None
        ]
        if known:
            yield plots.bars(title, known, size)
    parts = next((list(row.time_split_s) for row in rows if row.time_split_s), [])
    split = [Bar(r.name, [r.time_split_s[p] for p in parts]) for r in rows if r.time_split_s]
    if split:
        yield plots.bars("Where the time of an epoch goes", split, duration, parts)
    yield from _curves(rows)


_LIVE = "peak_memory_bytes"


def _curves(rows: Sequence[Row]) -> Iterator[str]:
    metric = next((row.metric["metric"] for row in rows if row.metric is not None), "metric")
    for title, name in (
        (f"{metric} over the time of training", "curve"),
        ("Training loss over the time of training", "losses"),
    ):
        series = [
            Line(row.name, _finite(getattr(row, name)), colour) for colour, row in enumerate(rows)
        ]
        drawn = [one for one in series if len(one.points) > 1]
        if drawn:
            yield plots.lines(title, drawn, "s")


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return thinned([(x, y) for x, y in points if math.isfinite(y)])


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """What was filled in for this machine."""
    for row in rows:
        for note in row.notes:
            yield f'<p class="quiet">{escape(row.name)}: {escape(note)}</p>'


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
