"""Pages that were written earlier: which files are pages, and reports that are written again."""

from __future__ import annotations

from pathlib import Path

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.report.page import MARK
from gearshift.launcher.report.report import write_at_end
from gearshift.launcher.run_folder import run_folder


def is_page(path: Path) -> bool:
    """Whether the file at `path` was written by `render`. Reads the disk. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK in file.read(1000)


def check_out(path: Path, where: str) -> None:
    """Refuse a file that cannot be written, or that is of another program. Reads the disk.

    Raises SettingsError; `where` is the option.
    """
    disk.check_writable(path.parent, where)
    if path.is_dir() or (path.exists() and not is_page(path)):
        raise SettingsError.of(
            f"{path} is a folder or was not written by this program",
            value=str(path),
            where=where,
            allowed="a new file, or an earlier report",
        )


def refresh(folder: Path) -> None:
    """Write the report of a run again, and that of all stages above it, if they exist.

    Touches the disk.
    """
    for reported in (folder, folder.absolute().parent):
        path = reported / run_folder.REPORT
        is_of_run = reported == folder or (reported / run_folder.STAGES).is_file()
        if is_of_run and path.is_file() and is_page(path):
            write_at_end(reported)
