"""The command `report`: write the report of one run, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.base import disk, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.run_folder import run_folder
from training.logging.strict_json import encode


def main(command_line: CommandLine) -> int:
    """Write the report; the exit code. Raises SettingsError and StorageError."""
    if command_line.diagnostics:
        raise SettingsError(command_line.diagnostics)
    assert command_line.argument is not None
    named = [command_line.argument, *command_line.more]
    from launcher.report import report, run_record

    folders = [Path(name) for name in named]
    for folder in folders:
        if not run_record.runs_of(folder):
            raise _no_run(folder)
    out = _out(command_line.out, named)
    runs = report.write(folders, out)
    print(encode(report.as_json(runs, out), indent=2) if JSON.flag in command_line.flags else out)
    return exit_codes.DONE


def _no_run(folder: Path) -> SettingsError:
    message, where = f"{folder} is not a run folder", f"command line: report {folder}"
    return SettingsError.of(message, value=str(folder), where=where, allowed="run folders")


def _out(out: Path | None, named: Sequence[str]) -> Path:
    """The file to write: in the run folder, or here for several. Raises SettingsError.

    No file of another program is replaced.
    """
    from launcher.report.page import is_page

    where = "the default of --out" if out is None else f"--out {out}"
    if out is None:
        out = (Path(named[0]) if len(named) == 1 else Path()) / run_folder.REPORT
    allowed = "a new file, or an earlier report"
    if out.is_dir():
        message = f"{out} is a folder"
        raise SettingsError.of(message, value=str(out), where=where, allowed=allowed)
    disk.check_writable(out.parent, where, allowed="a file in a folder that you may write to")
    if out.exists() and not is_page(out):
        message = f"{out} was not written by this program"
        raise SettingsError.of(message, value=str(out), where=where, allowed=allowed)
    return out
