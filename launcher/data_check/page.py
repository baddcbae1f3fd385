"""The HTML page of a data check, and the folder with the page and its pictures."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from launcher.base import disk
from launcher.base.diagnostics import SettingsError
from launcher.data_check.findings import Findings
from models.base import Picture
from training.storage import atomic_write

DEFAULT_FOLDER = Path("data-check")
PAGE = "data.html"
MARK = '<meta name="generator" content="gearshift data check">'
"""Marks a page as written by `data check`."""
SHOWN = 600
"""Characters of each part of a sample."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_FIGURE = re.compile(r'<figure id="([A-Za-z0-9_-]+)">')
_STYLE = Path(__file__).with_suffix(".css")


def render(found: Findings) -> str:
    """The page: tables and pictures in one file, without scripts or links to the network."""
    title = escape(f"Data: {found.path}")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{MARK}\n<title>{title}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n"
    )
    return head + "\n".join(["<body>", "<main>", *_body(found), "</main>", "</body>", "</html>"])


def file_name(picture: Picture) -> str:
    """A safe file name for a picture."""
    return _UNSAFE.sub("-", picture.name).strip("-") or "picture"


def files_of(html: str) -> list[str]:
    """The file names of the pictures of a rendered page."""
    return _FIGURE.findall(html) if MARK in html else []


def rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact."""
    return [(name.replace("_", " "), text(value)) for name, value in facts.items()]


def text(value: Any) -> str:
    """A fact as text: numbers in groups of three digits, mappings in a row."""
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
    """The line about groups in two splits."""
    if found.overlapping_groups is None:
        return "unknown: the task has no groups"
    if not found.overlapping_groups:
        return "none: no group is in two splits"
    count = len(found.overlapping_groups)
    groups = "1 group is" if count == 1 else f"{count} groups are"
    return f"{groups} in two splits: {text(found.overlapping_groups[:10])}"


def sample_rows(found: Findings) -> list[tuple[str, str]]:
    """Name and text of each part of the sample, up to SHOWN characters of each."""
    return [
        (
            "learned" if part.in_loss else "given",
            part.text[:SHOWN] + ("…" * (len(part.text) > SHOWN)),
        )
        for part in found.text
    ]


def _body(found: Findings) -> Iterator[str]:
    yield f"<h1>{escape(found.path)}</h1>"
    line = f"{found.format}; read by {found.model}" if found.format else f"read by {found.model}"
    yield f'<p class="quiet">{escape(line)}</p>'
    yield from _table("Facts", rows(found.facts))
    yield from _table("A sample: only what is learned counts in the loss", sample_rows(found))
    yield from _table("A batch of one sample", rows(found.sample))
    state = "quiet"
    if found.overlapping_groups is not None:
        state = "bad" if found.overlapping_groups else "good"
    yield f'<p class="{state}"><strong>Overlap:</strong> {escape(overlap(found))}</p>'
    if found.pictures:
        yield "<h2>Pictures</h2>"
    for picture in found.pictures:
        source = f"data:image/png;base64,{b64encode(picture.png).decode()}"
        caption = escape(picture.caption)
        yield f'<figure id="{file_name(picture)}"><img src="{source}" alt="{caption}">'
        yield f"<figcaption>{caption}</figcaption></figure>"


def _table(caption: str, lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not lines:
        return
    yield f"<table>\n<caption>{escape(caption)}</caption>\n<tbody>"
    for name, line in lines:
        yield f'<tr><th scope="row">{escape(name)}</th><td>{escape(line)}</td></tr>'
    yield "</tbody>\n</table>"


def check_folder(folder: Path, origin: str) -> None:
    """Refuse a folder with other content; `origin` is the option. Reads the disk.

    Raises SettingsError.
    """
    try:
        if not folder.exists():
            disk.check_writable(folder, origin)
            return
        if not folder.is_dir():
            message = f"{folder} is a file"
        elif not any(folder.iterdir()) or MARK in _old_page(folder):
            disk.check_writable(folder, origin)
            return
        else:
            message = f"{folder} contains other files"
    except OSError as error:
        message = f"cannot open {folder}: {error.strerror or error}"
    allowed = "a new or empty folder, or the folder of an earlier check"
    raise SettingsError.of(message, value=str(folder), where=origin, allowed=allowed)


def write(found: Findings, folder: Path) -> list[Path]:
    """Write the page and a file for each picture, and remove those of an earlier check.

    Touches the disk. Raises SettingsError.
    """
    pictures = {f"{file_name(picture)}.png": picture.png for picture in found.pictures}
    try:
        with disk.new_parents(folder / PAGE):
            for name in files_of(_old_page(folder)):
                (folder / f"{name}.png").unlink(missing_ok=True)
            atomic_write(folder / PAGE, render(found).encode())
            for name, png in pictures.items():
                atomic_write(folder / name, png)
    except OSError as error:
        message = f"cannot write {error.filename or folder}: {error.strerror or error}"
        where = f"--out {folder}"
        raise SettingsError.of(message, value=str(folder), where=where) from error
    return [folder / PAGE, *(folder / name for name in pictures)]


def _old_page(folder: Path) -> str:
    path = folder / PAGE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
