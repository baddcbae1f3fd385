"""The HTML page of a data check, and the folder with the page and its pictures."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

from launcher.base import disk
from launcher.base.diagnostics import SettingsError
from launcher.report import page
from launcher.report.data_check import Findings
from models.base import Picture
from training.storage import atomic_write

DEFAULT_FOLDER = Path("data-check")
PAGE = "data.html"
SHOWN = 600
"""Characters of each part of a sample."""
_TEMPLATE = Path(__file__).with_suffix(".html")


def render(findings: Findings) -> bytes:
    """The page: tables and pictures in one file, without scripts or links to the network."""
    groups = findings.overlapping_groups
    state = "quiet" if groups is None else "bad" if groups else "good"
    read = f"read by {findings.model}"
    return page.render(
        _TEMPLATE,
        title=f"Data: {findings.path}",
        path=findings.path,
        line=f"{findings.format}; {read}" if findings.format else read,
        facts=page.fact_rows(findings.facts),
        parts_of_sample=sample_rows(findings),
        sample=page.fact_rows(findings.sample),
        state=state,
        overlap=overlap(findings),
        pictures=[
            (file_name(picture), b64encode(picture.png).decode(), picture.caption)
            for picture in findings.pictures
        ],
    )


def file_name(picture: Picture) -> str:
    """A safe file name for a picture."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", picture.name).strip("-") or "picture"


def files_of(html: str) -> list[str]:
    """The file names of the pictures of a rendered page."""
    return re.findall(r'<figure id="([A-Za-z0-9_-]+)">', html) if page.MARK in html else []


def overlap(findings: Findings) -> str:
    """The line about groups in two splits."""
    if findings.overlapping_groups is None:
        return "unknown: the task has no groups"
    if not findings.overlapping_groups:
        return "none: no group is in two splits"
    count = len(findings.overlapping_groups)
    groups = "1 group is" if count == 1 else f"{count} groups are"
    return f"{groups} in two splits: {page.fact_text(findings.overlapping_groups[:10])}"


def sample_rows(findings: Findings) -> list[tuple[str, str]]:
    """Name and text of each part of the sample, up to SHOWN characters of each."""
    return [
        ("learned" if part.in_loss else "given", part.text[:SHOWN] + "…" * (len(part.text) > SHOWN))
        for part in findings.text
    ]


def check_folder(folder: Path, origin: str) -> None:
    """Refuse a folder with other content; `origin` is the option. Reads the disk.

    Raises SettingsError.
    """
    problem = None
    try:
        if folder.exists() and not folder.is_dir():
            problem = f"{folder} is a file"
        elif folder.exists() and any(folder.iterdir()) and page.MARK not in _old_page(folder):
            problem = f"{folder} contains other files"
    except OSError as error:
        problem = f"cannot open {folder}: {error.strerror or error}"
    if problem is not None:
        allowed = "a new or empty folder, or the folder of an earlier check"
        raise SettingsError.of(problem, value=str(folder), where=origin, allowed=allowed)
    disk.check_writable(folder, origin)


def write(findings: Findings, folder: Path) -> list[Path]:
    """Write the page and a file for each picture, and remove those of an earlier check.

    Touches the disk. Raises SettingsError.
    """
    pictures = {f"{file_name(picture)}.png": picture.png for picture in findings.pictures}
    try:
        with disk.new_parents(folder / PAGE):
            for name in files_of(_old_page(folder)):
                (folder / f"{name}.png").unlink(missing_ok=True)
            atomic_write(folder / PAGE, render(findings))
            for name, png in pictures.items():
                atomic_write(folder / name, png)
    except OSError as error:
        message = f"cannot write {error.filename or folder}: {error.strerror or error}"
        raise SettingsError.of(message, value=str(folder), where=f"--out {folder}") from error
    return [folder / PAGE, *(folder / name for name in pictures)]


def _old_page(folder: Path) -> str:
    path = folder / PAGE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
