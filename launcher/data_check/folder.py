"""The folder with the page and the pictures: a new one, or one that an earlier check wrote."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.data_check import page
from launcher.data_check.findings import Findings

DEFAULT = Path("data-check")
PAGE = "data.html"


def check(folder: Path, place: str) -> None:
    """Whether a check may write into `folder`, which `place` asked for; writes nothing.

    Raises SettingsError where something else lies in it.
    """
    allowed = "a new or empty folder, or one that an earlier check wrote"
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            what = f"{folder} is a file"
        elif not any(folder.iterdir()) or _is_ours(folder):
            return
        else:
            what = f"{folder} holds something else"
    except OSError as fault:
        what = f"{folder} cannot be opened: {fault.strerror or fault}"
    raise SettingsError([Diagnostic(what, value=str(folder), where=place, allowed=allowed)])


def write(found: Findings, folder: Path) -> list[Path]:
    """The page and a file for each picture; those of an earlier check are gone then.

    Touches the disk. Raises SettingsError where it cannot.
    """
    pictures = {f"{page.file_name(one)}.png": one.png for one in found.pictures}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in page.files_of(_text(folder)):
            (folder / f"{name}.png").unlink(missing_ok=True)
        (folder / PAGE).write_text(page.render(found), encoding="utf-8")
        for name, png in pictures.items():
            (folder / name).write_bytes(png)
    except OSError as fault:
        reason = fault.strerror or str(fault)
        what = f"{fault.filename or folder} cannot be written: {reason}"
        raise SettingsError(
            [Diagnostic(what, value=str(folder), where=f"--out {folder}")]
        ) from fault
    return [folder / PAGE, *(folder / name for name in pictures)]


def _is_ours(folder: Path) -> bool:
    return page.MARK in _text(folder)


def _text(folder: Path) -> str:
    """The page that is there; empty where none is."""
    path = folder / PAGE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
