"""The HTML page of a data check."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from launcher.base import disk
from launcher.base.diagnostics import SettingsError, counted
from launcher.report import page
from launcher.report.data_check import Findings
from training.storage import atomic_write

DEFAULT_FOLDER = Path("data-check")
PAGE = "data.html"
SHOWN = 600
"""Characters of each part of a sample."""
_TEMPLATE = Path(__file__).with_suffix(".html")


def render(findings: Findings) -> bytes:
    """The page: tables and pictures in one file, without scripts or links to the network."""
    groups = findings.overlapping_groups
    return page.render(
        _TEMPLATE,
        title=f"Data: {findings.path}",
        path=findings.path,
        line="; ".join(filter(None, (findings.format, f"read by {findings.model}"))),
        facts=page.fact_rows(findings.facts),
        parts_of_sample=sample_rows(findings),
        sample=page.fact_rows(findings.sample),
        state="quiet" if groups is None else "bad" if groups else "good",
        overlap=overlap(findings),
        pictures=[(b64encode(picture.png).decode(), picture.caption) for picture in findings.pictures],
    )


def overlap(findings: Findings) -> str:
    """The line about groups in two splits."""
    groups = findings.overlapping_groups
    if groups is None:
        return "unknown: the task has no groups"
    if not groups:
        return "none: no group is in two splits"
    are = "is" if len(groups) == 1 else "are"
    return f"{counted(len(groups), 'group')} {are} in two splits: {page.fact_text(groups[:10])}"


def sample_rows(findings: Findings) -> list[tuple[str, str]]:
    """Name and text of each part of the sample, up to SHOWN characters of each."""
    return [
        ("learned" if part.in_loss else "given", part.text[:SHOWN] + "…" * (len(part.text) > SHOWN))
        for part in findings.text
    ]


def check_folder(folder: Path, origin: str) -> None:
    """Refuse a folder whose data.html is of another program; `origin` is the option.

    Reads the disk. Raises SettingsError.
    """
    disk.check_writable(folder, origin)
    if (folder / PAGE).exists() and not page.is_page(folder / PAGE):
        message, allowed = f"{folder / PAGE} is of another program", "another folder"
        raise SettingsError.of(message, value=str(folder), where=origin, allowed=allowed)


def write(findings: Findings, folder: Path) -> Path:
    """Write the page. Touches the disk. Raises SettingsError."""
    try:
        with disk.new_parents(folder / PAGE):
            atomic_write(folder / PAGE, render(findings))
    except OSError as error:
        message = f"cannot write {error.filename or folder}: {error.strerror or error}"
        raise SettingsError.of(message, value=str(folder), where=f"--out {folder}") from error
    return folder / PAGE
