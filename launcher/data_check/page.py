"""One page of HTML on what data holds: facts as tables, pictures within it, no script."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from launcher.data_check.findings import Findings
from models.base import Picture

MARK = '<meta name="generator" content="gearshift data check">'
"""By this line a page is known for ours."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_FIGURE = re.compile(r'<figure id="([A-Za-z0-9_-]+)">')
_STYLE = """
:root { color-scheme: light dark; --line: #c8ccd4; --quiet: #5a6270; --good: #1a7f37;
  --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --line: #3d434d; --quiet: #a0a8b6;
  --good: #4ac26b; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 500; width: 14rem; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
figcaption, .quiet { color: var(--quiet); }
.good { color: var(--good); } .bad { color: var(--bad); }
"""


def render(found: Findings) -> str:
    """The page; it opens without a network."""
    title = escape(f"Data: {found.path}")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{MARK}\n<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
    )
    return head + "\n".join(["<body>", "<main>", *_body(found), "</main>", "</body>", "</html>"])


def file_name(picture: Picture) -> str:
    """The picture's name in letters that any system takes."""
    return _UNSAFE.sub("-", picture.name).strip("-") or "picture"


def files_of(html: str) -> list[str]:
    """The names of the pictures on a page that was rendered before."""
    return _FIGURE.findall(html) if MARK in html else []


def rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each fact in a name and a line: numbers in groups of three digits, mappings in a row."""
    return [(name.replace("_", " "), text(value)) for name, value in facts.items()]


def text(value: Any) -> str:
    """A fact as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_within(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(text(inner) for inner in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _within(value: Any) -> str:
    return f"({text(value)})" if isinstance(value, Mapping) and value else text(value)


def overlap(found: Findings) -> str:
    """What is to be said of groups in two splits."""
    if found.shared_groups is None:
        return "not known: the task keeps no groups"
    if not found.shared_groups:
        return "none: no group is in two splits"
    count = len(found.shared_groups)
    told = "1 group is" if count == 1 else f"{count} groups are"
    return f"{told} in two splits: {text(found.shared_groups[:10])}"


def _body(found: Findings) -> Iterator[str]:
    yield f"<h1>{escape(found.path)}</h1>"
    said = f"{found.format}; read by {found.model}" if found.format else f"read by {found.model}"
    yield f'<p class="quiet">{escape(said)}</p>'
    yield from _table("What was found", rows(found.facts))
    yield from _table("A batch of one sample", rows(found.sample))
    state = "bad" if found.shared_groups else "good" if found.shared_groups is not None else "quiet"
    yield f'<p class="{state}"><strong>Overlap:</strong> {escape(overlap(found))}</p>'
    if found.pictures:
        yield "<h2>Pictures</h2>"
    for picture in found.pictures:
        source = f"data:image/png;base64,{b64encode(picture.png).decode()}"
        caption = escape(picture.caption)
        yield f'<figure id="{file_name(picture)}"><img src="{source}" alt="{caption}">'
        yield f"<figcaption>{caption}</figcaption></figure>"


def _table(caption: str, told: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not told:
        return
    yield f"<table>\n<caption>{escape(caption)}</caption>\n<tbody>"
    for name, line in told:
        yield f'<tr><th scope="row">{escape(name)}</th><td>{escape(line)}</td></tr>'
    yield "</tbody>\n</table>"
