"""The last line of a run: where it lies, and what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.resume import find
from launcher.run_folder import experiences, run_folder


def text(exit_code: int, folder: Path, embedded: bool) -> str:
    """What a person reads last; `embedded`: no data was named. Reads the folder."""
    where = f"run folder {folder}"
    failed = exit_code == exit_codes.FAILURE
    if failed:
        where += f"; what happened: {folder / run_folder.LOG}"
    if exit_code != exit_codes.DONE and find.newest_step(folder) is not None:
        return f"{where}; go on: {PROGRAM} resume {_typed(folder)}"
    if failed:
        return where
    if exit_code == exit_codes.DONE and (folder / experiences.NAME).exists():
        return f"{where}; continue: {PROGRAM} resume {_typed(folder)}"
    if exit_code == exit_codes.DONE and embedded:
        return f"{where}; next, text of your own: {PROGRAM} --data FOLDER"
    return f"{where}; run it again: {PROGRAM} --config {_typed(folder / run_folder.SETTINGS)}"


def _typed(path: Path) -> str:
    return shlex.quote(str(path))
