"""The command `report`: write the report of one run, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.base import disk
from launcher.base.diagnostics import SettingsError
from launcher.commands import output
from launcher.config.command_line import CommandLine
from launcher.run_folder import run_folder


def main(command_line: CommandLine) -> int:
    """Write the report; the exit code. Raises SettingsError and StorageError."""
    named = [command_line.argument, *command_line.more]
    from launcher.report import report, run_record

    folders = [Path(name) for name in named]
    for folder in folders:
        if not run_record.runs_of(folder):
            message, where = f"{folder} is not a run folder", f"command line: report {folder}"
            raise SettingsError.of(message, value=str(folder), where=where, allowed="run folders")
    out = _out(command_line.out, named)
    runs = report.write(folders, out)
    return output.show(command_line, report.as_json(runs, out), str(out))


def _out(out: Path | None, named: Sequence[str]) -> Path:
    """The file to write: in the run folder, or here for several. Raises SettingsError.

    No file of another program is replaced.
    """
    from launcher.report.page import is_page

    where = "the default of --out" if out is None else f"--out {out}"
    if out is None:
        out = (Path(named[0]) if len(named) == 1 else Path()) / run_folder.REPORT
    disk.check_writable(out.parent, where, allowed="a file in a folder that you may write to")
    if out.is_dir() or (out.exists() and not is_page(out)):
        problem = "is a folder" if out.is_dir() else "was not written by this program"
        allowed = "a new file, or an earlier report"
        raise SettingsError.of(f"{out} {problem}", value=str(out), where=where, allowed=allowed)
    return out
